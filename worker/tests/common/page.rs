//! Sections of `docs/parity.md`, each written by the one test that measures it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Of this process; other processes that write do so one after another.
static WRITING: Mutex<()> = Mutex::new(());

/// A figure as pages give it: the least of 1, 2 and 5 · 10^k that is no smaller, so that noise changes no page.
pub(crate) fn up(figure: f32) -> String {
    let grid = (-9..9).flat_map(|k| [1, 2, 5].map(|digit| format!("{digit}e{k}")));
    let mut above = grid.filter(|text| text.parse().is_ok_and(|above: f32| figure <= above));
    if figure == 0.0 { "0".to_owned() } else { above.next().unwrap_or_else(|| figure.to_string()) }
}

/// Fails unless the section says `text`; under `SHOAL_BLESS=1` it says so from then on.
pub(crate) fn check(section: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/parity.md");
    let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let page = std::fs::read_to_string(&path).expect("docs/parity.md should be there");
    let (begin, end) = (format!("<!-- begin {section} -->\n"), format!("<!-- end {section} -->\n"));
    let parts = page.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?)));
    let Some((before, (found, after))) = parts else { panic!("docs/parity.md has no section {section}") };
    if std::env::var_os("SHOAL_BLESS").is_some() {
        let page = [before, &begin, text, &end, after].concat();
        std::fs::write(&path, page).expect("docs/parity.md should be writable");
    } else {
        assert_eq!(
            found, text,
            "section {section} of docs/parity.md is not what was measured; SHOAL_BLESS=1 writes it"
        );
    }
}
