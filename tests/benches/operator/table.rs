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
}

static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());

fn with_row(case: &'static str, change: impl FnOnce(&mut Row)) {
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    if !rows.iter().any(|row| row.case == case) {
        rows.push(Row { case, floor: None, shoal: None });
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

pub(crate) async fn print() -> Result<()> {
    let rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut written = Vec::new();
    println!("\n| case, {} groups | floor | Shoal | ratio |\n|---|---|---|---|", crate::groups());
    for row in rows {
        let floor = row.floor.map_or("–".into(), |seconds| format!("{seconds:.1} s"));
        let shoal = row.shoal.map_or("–".into(), |(amount, unit)| format!("{amount:.2} {unit}"));
        let ratio = row.floor.zip(row.shoal).map(|(floor, (amount, _))| amount / floor);
        println!("| {} | {floor} | {} | {} |", row.case, shoal.trim(), ratio.map_or("–".into(), |r| format!("{r:.2}")));
        written.push(
            json!({"case": row.case, "floor": row.floor, "shoal": row.shoal.map(|(amount, _)| amount), "ratio": ratio}),
        );
    }
    println!("fleet: {} objects of 4 groups of 2, {} foreign pods", fleet::objects(), fleet::foreign());
    let folder = repository().join("target/bench");
    std::fs::create_dir_all(&folder)?;
    let all: Value = json!({"groups": crate::groups(), "fleet": [fleet::objects(), fleet::foreign()], "rows": written});
    std::fs::write(folder.join("operator.json"), serde_json::to_string_pretty(&all)?)?;
    Ok(())
}
