//! What the chart's rules and dashboard look at, and what a process truly exports.
//!
//! Never judges a rule: promtool does.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::paths::repository;

/// The rules of the chart, as Prometheus reads them.
pub const RULES: &str = "charts/shoal/files/rules.yaml";
/// The dashboard of the chart, as Grafana reads it.
pub const DASHBOARD: &str = "charts/shoal/files/dashboard.json";

/// Every series that an expression of the rules or of the dashboard names and that begins with `prefix`.
///
/// # Errors
/// When a file cannot be read.
pub fn looked_at(prefix: &str) -> Result<BTreeSet<String>> {
    let mut expressions = Vec::new();
    let text = |path: &str| std::fs::read_to_string(repository().join(path)).with_context(|| path.to_owned());
    gather(&serde_yaml::from_str(&text(RULES)?)?, &mut expressions);
    gather(&serde_json::from_str(&text(DASHBOARD)?)?, &mut expressions);
    let words = expressions.iter().flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    Ok(words.filter(|word| word.starts_with(prefix)).map(str::to_owned).collect())
}

/// The values of all fields `expr`, and of the dashboard's `query`.
fn gather(value: &serde_json::Value, expressions: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    serde_json::Value::String(text) if matches!(name.as_str(), "expr" | "query") => {
                        expressions.push(text.clone());
                    }
                    other => gather(other, expressions),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| gather(item, expressions)),
        _ => {}
    }
}

/// Every series that a page of metrics can have, by the types that it declares.
#[must_use]
pub fn exported(page: &str) -> BTreeSet<String> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let series = types.flat_map(|(name, kind)| {
        let endings: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        endings.iter().map(move |ending| format!("{name}{ending}"))
    });
    series.collect()
}

/// The page `/metrics` of the process that listens on `address`.
///
/// # Errors
/// When nobody answers.
pub async fn page(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address).await.context("the metrics port")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await.context("the metrics page")?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_its_series_by_their_types() {
        let page =
            "# HELP a b\n# TYPE a counter\na_total{x=\"y\"} 1\n# TYPE b_seconds histogram\n# TYPE c gauge\n# EOF";
        let series = ["a_total", "b_seconds_bucket", "b_seconds_count", "b_seconds_sum", "c"].map(str::to_owned);
        assert_eq!(exported(page), BTreeSet::from(series));
    }
}
