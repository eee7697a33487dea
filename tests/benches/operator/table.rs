//! The rows, as they come in; printed and written once, at the end.

use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use serde_json::{Value, json};
use shoal_tests::paths::repository;

use crate::fleet;

#[derive(Clone)]
struct Row {
    case: &'static str,
    floor: Option<f64>,
    shoal: Option<(f64, &'static str)>,
    /// In the unit of `shoal`.
    rival: Option<f64>,
}

static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());

fn with_row(case: &'static str, change: impl FnOnce(&mut Row)) {
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    if !rows.iter().any(|row| row.case == case) {
        rows.push(Row { case, floor: None, shoal: None, rival: None });
    }
    if let Some(row) = rows.iter_mut().find(|row| row.case == case) {
        change(row);
    }
}

/// Seconds of the dumb client.
pub(crate) fn floor(case: &'static str, seconds: f64) {
    with_row(case, |row| row.floor = Some(seconds));
}

/// What the operator needed.
pub(crate) fn shoal(case: &'static str, amount: f64, unit: &'static str) {
    with_row(case, |row| row.shoal = Some((amount, unit)));
}

/// What LeaderWorkerSet needed, in the unit of ours.
pub(crate) fn rival(case: &'static str, amount: f64) {
    with_row(case, |row| row.rival = Some(amount));
}

pub(crate) async fn print() -> Result<()> {
    let rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut written = Vec::new();
    println!(
        "\n| case, {} groups | floor | Shoal | ÷ floor | LeaderWorkerSet | ÷ Shoal, or floor |\n|---|---|---|---|---|---|",
        crate::groups()
    );
    for row in rows {
        let unit = row.shoal.map_or("s", |(_, unit)| unit);
        let amount = row.shoal.map(|(amount, _)| amount);
        let ratio = row.floor.zip(amount).map(|(floor, amount)| amount / floor);
        let times = row.rival.zip(amount.or(row.floor)).map(|(rival, amount)| rival / amount);
        let cell = |value: Option<f64>, unit: &str| value.map_or("–".into(), |value| format!("{value:.2} {unit}"));
        let cells = [cell(row.floor, "s"), cell(amount, unit), cell(ratio, ""), cell(row.rival, unit), cell(times, "")];
        println!("| {} | {} |", row.case, cells.map(|cell| cell.trim().to_owned()).join(" | "));
        written
            .push(json!({"case": row.case, "floor": row.floor, "shoal": amount, "rival": row.rival, "ratio": ratio}));
    }
    println!("fleet: {} objects of 4 groups of 2, {} foreign pods", fleet::objects(), fleet::foreign());
    let folder = repository().join("target/bench");
    std::fs::create_dir_all(&folder)?;
    let all: Value = json!({"groups": crate::groups(), "fleet": [fleet::objects(), fleet::foreign()], "rows": written});
    std::fs::write(folder.join("operator.json"), serde_json::to_string_pretty(&all)?)?;
    Ok(())
}
