//! What `/metrics` serves once every metric has something to say.

use tiktok_shop_operator::metrics::{Fleet, FleetRow, Metrics, PerIntegrationMetrics, RefreshResult, Watched};

struct OneShop;

impl Fleet for OneShop {
    fn for_each(&self, row: &mut dyn FnMut(FleetRow<'_>)) {
        row(FleetRow {
            namespace: "shops",
            name: "shop-1",
            team: Some("1"),
            ready: "True",
            reason: "TokenValid",
            access_expires_at: Some(1),
            refresh_expires_at: Some(1),
            overdue: true,
        });
    }
}

/// Every metric with its help, its type and a series.
pub fn of_every_metric() -> String {
    let metrics = Metrics::new("0", String::new(), PerIntegrationMetrics::On);
    metrics.refresh_finished(RefreshResult::Success, std::time::Duration::ZERO);
    metrics.api_request(Some(200), Some(0));
    metrics.reconcile_failed("forbidden");
    metrics.watch_failed(Watched::Secrets);
    metrics.encode(&OneShop, 0)
}
