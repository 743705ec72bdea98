//! Metrics in the text format of Prometheus, parsed as far as tests ask.

use std::collections::BTreeMap;

/// One line of a scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name, suffixes such as `_total` or `_bucket` included.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value; `+Inf`, `-Inf` and `NaN` are read as such.
    pub value: f64,
}

impl Sample {
    fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.name == name && labels.iter().all(|(key, value)| self.labels.get(*key).is_some_and(|have| have == value))
    }
}

/// One scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scrape {
    /// Its samples, in order.
    pub samples: Vec<Sample>,
}

impl Scrape {
    /// Reads a scrape; panics with the line that is not one.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let samples = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| parse_line(line).unwrap_or_else(|| panic!("not a metric: {line:?}")))
            .collect();
        Self { samples }
    }

    /// The one sample of this name that has these labels (and maybe others);
    /// panics where more than one has.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.samples.iter().filter(|sample| sample.has(name, labels));
        let first = found.next()?;
        assert!(
            found.next().is_none(),
            "more than one sample is {name} with {labels:?}: name more labels or ask for the sum"
        );
        Some(first.value)
    }

    /// The sum of all samples of this name that have these labels; 0 where none has.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.samples.iter().filter(|sample| sample.has(name, labels));
        found.map(|sample| sample.value).sum()
    }
}

fn parse_line(line: &str) -> Option<Sample> {
    let name_end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    // A timestamp or an exemplar may follow.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

fn parse_labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (key, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(key.trim().to_owned(), value);
        rest = &quoted[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_labels_values_and_escapes() {
        let scrape = Scrape::parse(
            "# HELP a b\na_total{x=\"1\",y=\"p,\\\"q\\\" }\"} 3\na_total{x=\"2\"} 4 1700000000\nb +Inf\n# EOF\n",
        );
        assert_eq!(scrape.value("a_total", &[("x", "1")]), Some(3.0));
        assert_eq!(scrape.samples[0].labels["y"], "p,\"q\" }");
        assert!((scrape.sum("a_total", &[]) - 7.0).abs() < f64::EPSILON);
        assert_eq!(scrape.value("b", &[]), Some(f64::INFINITY));
        assert_eq!(scrape.value("c", &[]), None);
    }
}
