//! Each alert fires in the state that it speaks of, once it has lasted, and at no other time.

use tiktok_shop_testkit::{
    exposition::Scrape,
    fixtures::{has_condition, integration},
    poll,
    simulator::{Action, DropPoint, Fault, Point},
};

use crate::{
    promtool,
    stage::{DAY, HOUR, SOON, Stage, in_state, is, wait},
    story::{Phase, Story},
};

/// Minutes for which all is well before it is not.
const BEFORE: usize = 30;
/// Minutes for which it is not: longer than any rule asks for.
const AFTER: usize = 120;
/// The last minute.
const END: usize = BEFORE + AFTER - 1;

const UNREFRESHED: &str = "tiktokshop_integrations_unrefreshed";

/// Both replicas, first well and then not, and what fires then.
async fn turns(before: &[Scrape; 2], after: &[Scrape; 2], firing: &[(&str, &str)]) {
    told(before, after).turns(BEFORE, END, firing).tell().await;
}

fn told(before: &[Scrape; 2], after: &[Scrape; 2]) -> Story {
    ["a", "b"].into_iter().zip(before.iter().zip(after)).fold(Story::default(), |story, (instance, (before, after))| {
        story.process(instance, &[Phase::Steady(before, BEFORE), Phase::Steady(after, AFTER)])
    })
}

/// The shipped rules, as Prometheus reads them.
#[tokio::test]
async fn prometheus_takes_the_rules() {
    let rules = promtool::rules_file();
    promtool::run(&["check", "rules", "--lint-fatal", rules.to_str().expect("a plain path")], "").await;
}

/// A token that is to be refreshed within its last hour, as its `refreshBefore` says, and one that is suspended.
#[tokio::test]
async fn nothing_fires_while_all_goes_as_planned() {
    let stage = Stage::new().await;
    let replicas = stage.replicas().await;
    stage.new_shop(&stage.living("late", HOUR / 2), |late| late.refresh_before("5m")).await;
    let resting = stage.living("resting", HOUR / 2).refresh_remaining(DAY).refresh_life(DAY);
    stage.new_shop(&resting, |resting| resting.suspend(true)).await;
    let scrapes = replicas
        .scrape("two shops that are well and one suspended", |scrape| {
            in_state(scrape, "TokenValid", 2.0)
                && in_state(scrape, "Suspended", 1.0)
                && is(scrape, "tiktokshop_integrations_expiring", &[("token", "access"), ("within", "1h")], 1.0)
        })
        .await;
    turns(&scrapes, &scrapes, &[]).await;
}

/// Covers: `metric/tiktokshop_integrations_unrefreshed`, `metric/tiktokshop_lease_info`
#[tokio::test]
async fn a_token_that_expires_and_is_not_refreshed_is_told_a_day_before_and_again_in_its_last_hour() {
    let stage = Stage::new().await;
    let replicas = stage.replicas().await;
    let before = replicas.scrape("all well", |scrape| in_state(scrape, "TokenValid", 1.0)).await;
    stage.shop_that_meets(Action::code(99_999_999), "tomorrow", 20 * HOUR).await;
    let tomorrow = replicas.scrape("one that fails", |scrape| is(scrape, UNREFRESHED, &[("within", "24h")], 1.0)).await;
    let lease = stage.lease("one");
    turns(&before, &tomorrow, &[("TikTokShopTokenNotRefreshed", &lease)]).await;

    stage.shop_that_meets(Action::code(99_999_999), "now", HOUR / 2).await;
    let now = replicas
        .scrape("one in its last hour", |scrape| {
            is(scrape, UNREFRESHED, &[("within", "1h")], 1.0) && in_state(scrape, "RefreshFailing", 2.0)
        })
        .await;
    assert!(replicas.leader.metrics().await.value("tiktokshop_lease_info", &[("lease", &lease)]) == Some(1.0));
    told(&before, &now)
        .turns(BEFORE, END, &[("TikTokShopTokenNotRefreshed", &lease), ("TikTokShopTokenExpiring", &lease)])
        .reads(
            END,
            "TikTokShopTokenExpiring",
            &[("namespace", "tiktok-shop"), ("lease", &lease)],
            "TikTok Shop access tokens are about to expire, or have, and are not refreshed",
            &format!(
                "The access tokens of 1 integration(s) expire within the hour, or have expired, and their refresh fails, \
                 is blocked or is overdue (lease {lease}). These shops stop. `kubectl tiktokshop status -A` lists them, \
                 soonest first, with what to do about each."
            ),
        )
        .tell()
        .await;
}

#[tokio::test]
async fn a_refresh_token_that_expires_within_14_days_is_told() {
    let stage = Stage::new().await;
    let replicas = stage.replicas().await;
    let before = replicas.scrape("all well", |scrape| in_state(scrape, "TokenValid", 1.0)).await;
    stage.new_shop(&stage.living("ten", 5 * DAY).refresh_remaining(10 * DAY).refresh_life(10 * DAY), |ten| ten).await;
    let expiring = |scrape: &_| {
        is(scrape, "tiktokshop_integrations_expiring", &[("token", "refresh"), ("within", "14d")], 1.0)
            && in_state(scrape, "TokenValid", 2.0)
    };
    let after = replicas.scrape("one refresh token that expires", expiring).await;
    turns(&before, &after, &[("TikTokShopRefreshTokenExpiring", &stage.lease("one"))]).await;
}

#[tokio::test]
async fn a_seller_who_must_authorize_again_and_what_a_person_must_correct_are_told() {
    let stage = Stage::new().await;
    let replicas = stage.replicas().await;
    let before = replicas.scrape("all well", |scrape| in_state(scrape, "TokenValid", 1.0)).await;
    stage.simulator.deauthorize("well").await;
    stage.request("well", "now").await;
    let rejected = replicas.scrape("a refused token", |scrape| in_state(scrape, "RefreshTokenRejected", 1.0)).await;
    let lease = stage.lease("one");
    turns(&before, &rejected, &[("TikTokShopReauthorizationNeeded", &lease)]).await;

    integration(&stage.namespace, "forgotten", "no-such-secret", "app").create(&stage.client).await;
    let both =
        |scrape: &_| in_state(scrape, "TokenSecretNotFound", 1.0) && in_state(scrape, "RefreshTokenRejected", 1.0);
    let both = replicas.scrape("a Secret that is not there", both).await;
    let firing = [("TikTokShopReauthorizationNeeded", lease.as_str()), ("TikTokShopCorrectionNeeded", &lease)];
    turns(&before, &both, &firing).await;
}

#[tokio::test]
async fn a_refused_authorization_code_is_told_as_a_seller_who_must_authorize_again() {
    let stage = Stage::new().await;
    let replicas = stage.replicas().await;
    let before = replicas.scrape("all well", |scrape| in_state(scrape, "TokenValid", 1.0)).await;
    stage.latecomer("late").await;
    let after = replicas.scrape("a refused code", |scrape| in_state(scrape, "AuthorizationCodeRejected", 1.0)).await;
    turns(&before, &after, &[("TikTokShopReauthorizationNeeded", &stage.lease("one"))]).await;
}

#[tokio::test]
async fn an_outcome_that_stays_unknown_is_told() {
    let stage = Stage::new().await;
    let replicas = stage.replicas().await;
    let before = replicas.scrape("all well", |scrape| in_state(scrape, "TokenValid", 1.0)).await;
    stage.simulator.add_fault(Fault::always(Action::drop(DropPoint::BeforeProcessing)).shop("well")).await;
    stage.request("well", "now").await;
    let after = replicas.scrape("an unknown outcome", |scrape| in_state(scrape, "OutcomeUnknown", 1.0)).await;
    turns(&before, &after, &[("TikTokShopOutcomeUnknown", &stage.lease("one"))]).await;
}

/// One call that does not end takes the only slot; what waits behind it has been due for two minutes.
#[tokio::test]
async fn a_refresh_that_is_due_and_not_attempted_is_told() {
    let stage = Stage::new().await;
    stage.shop("well", 5 * DAY).await;
    let stuck = stage.operator("stuck", &stage.ways[0]).flag("max-concurrent-refreshes", "1");
    let mut operator = stuck.flag("request-timeout", "5m").start();
    let before = wait(&operator, "all well", |scrape| {
        in_state(scrape, "TokenValid", 1.0) && is(scrape, "tiktokshop_leader", &[], 1.0)
    });
    let before = before.await;
    operator.sigterm(SOON).await;
    stage.shop_that_meets(Action::hold(Point::BeforeProcessing), "first", 12 * HOUR).await;
    stage.shop("second", 13 * HOUR).await;
    stage.was_due("second").await;
    operator.restart();
    stage.simulator.wait_for_held("first", Point::BeforeProcessing, SOON).await;
    let after =
        wait(&operator, "one that waits", |scrape| is(scrape, "tiktokshop_overdue_integrations", &[], 1.0)).await;
    let lease = before.samples.iter().find_map(|sample| sample.labels.get("lease")).expect("it says its lease");
    Story::default()
        .process("a", &[Phase::Steady(&before, BEFORE), Phase::Steady(&after, AFTER)])
        .turns(BEFORE, END, &[("TikTokShopRefreshesOverdue", lease), ("TikTokShopTokenNotRefreshed", lease)])
        .tell()
        .await;
    stage.simulator.release_all().await;
}

/// The lease is somebody's who does nothing. What goes wrong meanwhile is seen by both who wait for it; a standby alone
/// is not believed while another leads.
#[tokio::test]
async fn no_leader_is_told_and_so_is_what_goes_wrong_meanwhile_but_no_standby_is_believed_beside_a_leader() {
    let stage = Stage::new().await;
    let replicas = stage.replicas().await;
    let before = replicas.scrape("all well", |scrape| in_state(scrape, "TokenValid", 1.0)).await;
    stage.steal_lease("one").await;
    let no_leader = |scrape: &_| is(scrape, "tiktokshop_leader", &[], 0.0);
    replicas.scrape("no leader", no_leader).await;
    stage.shop("due", HOUR).await;
    stage.was_due("due").await;
    let after = replicas
        .scrape("no leader, and one overdue", |scrape| {
            no_leader(scrape) && is(scrape, "tiktokshop_overdue_integrations", &[], 1.0)
        })
        .await;
    let lease = stage.lease("one");
    let firing = [("TikTokShopNoLeader", lease.as_str()), ("TikTokShopRefreshesOverdue", &lease)];
    turns(&before, &after, &firing).await;
    // The leader leads and says that all is well; the standby has missed what happened since.
    turns(&before, &[before[0].clone(), after[1].clone()], &[]).await;
}

/// Two shards, each with a lease of its own by its selector.
#[tokio::test]
async fn a_shard_without_a_leader_or_without_a_process_is_told_beside_one_that_is_well() {
    let stage = Stage::new().await;
    let shard = |number: usize| {
        let selector = format!("shard={number}");
        stage.operator(&selector, &stage.ways[number]).flag("watch-label-selector", &selector).start()
    };
    let leads = |scrape: &_| is(scrape, "tiktokshop_leader", &[], 1.0);
    let (zero, one) = (shard(0), shard(1));
    let [well_zero, well_one] = [wait(&zero, "leadership", leads).await, wait(&one, "leadership", leads).await];
    let lease_of = |scrape: &Scrape| {
        let lease = scrape.samples.iter().find_map(|sample| sample.labels.get("lease"));
        lease.expect("it says its lease").clone()
    };
    let [lease_zero, lease_one] = [&well_zero, &well_one].map(lease_of);
    assert_ne!(lease_zero, lease_one, "shards do not contend");
    stage.steal_lease(lease_zero.rsplit('/').next().expect("a name")).await;
    let led_by_none = wait(&zero, "no leader", |scrape| is(scrape, "tiktokshop_leader", &[], 0.0)).await;

    Story::default()
        .process("a", &[Phase::Steady(&well_zero, BEFORE), Phase::Steady(&led_by_none, AFTER)])
        .process("b", &[Phase::Steady(&well_one, BEFORE + AFTER)])
        .turns(BEFORE, END, &[("TikTokShopNoLeader", &lease_zero)])
        .tell()
        .await;
    Story::default()
        .process("a", &[Phase::Steady(&well_zero, BEFORE + AFTER)])
        .process("b", &[Phase::Steady(&well_one, BEFORE), Phase::Gone(AFTER)])
        .turns(BEFORE, END, &[("TikTokShopOperatorAbsent", &lease_one)])
        .tell()
        .await;
    // All of it: each shard for a day, and then that there is none at all, for ever.
    let days = 3 * 24 * 60;
    let both = [("TikTokShopOperatorAbsent", lease_zero.as_str()), ("TikTokShopOperatorAbsent", &lease_one)];
    Story::default()
        .process("a", &[Phase::Steady(&well_zero, BEFORE), Phase::Gone(days)])
        .process("b", &[Phase::Steady(&well_one, BEFORE), Phase::Gone(days)])
        .turns(BEFORE, END, &both)
        .firing(BEFORE + days - 1, &[("TikTokShopOperatorAbsent", "")])
        .reads(
            BEFORE + days - 1,
            "TikTokShopOperatorAbsent",
            &[],
            "TikTok Shop operator is absent",
            "No process of the operator has been scraped for 10 minutes. If none runs, no token is refreshed, and each \
             shop stops when its access token expires. See that its pods run, and that Prometheus scrapes them.",
        )
        .tell()
        .await;
}

/// The API server goes away with TikTok's answer in hand: until it is back, the only copy is the operator's.
///
/// Covers: `metric/tiktokshop_answers_held`, `metric/tiktokshop_persist_retries_total`,
/// `metric/tiktokshop_watch_errors_total`
#[tokio::test]
async fn an_answer_that_waits_to_be_stored_is_told_for_as_long_as_it_waits() {
    let stage = Stage::new().await;
    let replicas = stage.replicas().await;
    let before = replicas.scrape("all well", |scrape| in_state(scrape, "TokenValid", 1.0)).await;
    stage.simulator.add_fault(Fault::once(Action::hold(Point::AfterRotation)).shop("well")).await;
    stage.request("well", "now").await;
    let held = stage.simulator.wait_for_held("well", Point::AfterRotation, SOON).await;
    for way in &stage.ways {
        way.pause().await;
    }
    stage.simulator.release(held.id).await;
    let waits = |scrape: &_| is(scrape, "tiktokshop_answers_held", &[], 1.0);
    wait(&replicas.leader, "an answer that waits", waits).await;
    // Without the API server nobody renews the lease; the answer is held all the same.
    let failing = replicas.scrape("no leader", |scrape| is(scrape, "tiktokshop_leader", &[], 0.0)).await;
    let errors = |scrape: &_, before: &Scrape| {
        let sum = |scrape: &Scrape| scrape.sum("tiktokshop_watch_errors_total", &[]);
        sum(scrape) > sum(before) + 0.5
    };
    let later = [
        wait(&replicas.leader, "more errors", |scrape| errors(scrape, &failing[0])).await,
        wait(&replicas.standby, "more errors", |scrape| errors(scrape, &failing[1])).await,
    ];
    assert!(waits(&later[0]) && !waits(&later[1]), "the answer is its process's own: {:?}", later[0]);
    assert!(later[0].sum("tiktokshop_persist_retries_total", &[]) > 0.5, "the try to store it is counted");
    let lease = stage.lease("one");
    ["a", "b"]
        .into_iter()
        .enumerate()
        .fold(Story::default(), |story, (at, instance)| {
            let rising = Phase::Rising([&failing[at], &later[at]], AFTER);
            story.process(instance, &[Phase::Steady(&before[at], BEFORE), rising])
        })
        .turns(
            BEFORE,
            END,
            &[
                ("TikTokShopAnswerNotStored", &lease),
                ("TikTokShopNoLeader", &lease),
                ("TikTokShopWatchFailing", &lease),
            ],
        )
        .tell()
        .await;

    for way in &stage.ways {
        way.resume().await;
    }
    let stored = poll::until(SOON, async || {
        let status = stage.status("well").await;
        (status["lastHandledRefreshRequest"] == "now" && has_condition(&status, "Ready", "True", "TokenValid"))
            .then_some(())
    });
    assert!(stored.await.is_some(), "the answer was not stored: {:#}", stage.status("well").await);
    replicas.scrape("nothing held", |scrape| is(scrape, "tiktokshop_answers_held", &[], 0.0)).await;
    stage.simulator.assert_no_violations().await;
}
