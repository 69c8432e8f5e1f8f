//! What becomes of every fault the stand-in knows: one row each, played against a gateway that has one endpoint, and
//! against one that has a healthy second target.

mod play;
mod rows;

use std::collections::BTreeSet;
use std::path::Path;

use futures_util::{StreamExt, stream};
use outrigger::mock::{Network, Scenario, VOCABULARY, WORDS};

use play::Bench;
use rows::{Gets, Kind, ROWS, Row, Second};

/// Rows played at the same time.
const AT_ONCE: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_the_vocabulary_has_its_outcome() {
    let bench = Bench::new(ROWS).await;
    let bench = &bench;
    let plays = ROWS.iter().enumerate().map(|(number, row)| async move {
        let alone = bench.alone(number, row).await;
        let paired = bench.paired(number, row).await;
        alone.err().into_iter().chain(paired.err()).collect::<Vec<_>>()
    });
    let wrong: Vec<String> = stream::iter(plays).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await.concat();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Every key, and of a key with a closed list every word, as a row names it.
fn wanted() -> BTreeSet<String> {
    let worded = |key: &str| WORDS.iter().any(|(name, _)| name.split('.').next() == Some(key));
    let keys = VOCABULARY.iter().map(|(key, _)| *key).filter(|key| !worded(key)).map(str::to_owned);
    let words = WORDS.iter().flat_map(|(key, words)| words.iter().map(move |(word, _)| format!("{key}: {word}")));
    keys.chain(words).collect()
}

#[test]
fn every_word_of_the_vocabulary_has_a_row() {
    let found: BTreeSet<String> = ROWS.iter().map(|row| row.covers.to_owned()).collect();
    let missing: Vec<_> = wanted().difference(&found).cloned().collect();
    let unknown: Vec<_> = found.difference(&wanted()).cloned().collect();
    assert!(missing.is_empty() && unknown.is_empty(), "without a row: {missing:?}; in no vocabulary: {unknown:?}");
}

/// A row that names a word really says it.
#[test]
fn every_row_says_what_it_covers() {
    for Row { covers, fault, network, .. } in ROWS {
        if covers.starts_with("network: ") {
            let yaml = fault.replacen("network: ", "", 1);
            let said = Network::WORDS.iter().position(|(word, _)| *word == yaml);
            assert_eq!(said, Some(*network as usize), "`{fault}` is not {network:?}");
            continue;
        }
        let yaml = format!("rules: [{{ do: {{ {fault} }} }}]");
        assert!(Scenario::parse(&yaml).is_ok(), "{yaml}");
        let (key, word) = covers.split_once(": ").unwrap_or((covers, ""));
        let says = key.split('.').all(|part| fault.contains(&format!("{part}: "))) && fault.contains(word);
        assert!(says, "`{fault}` does not say `{covers}`");
    }
}

fn told(row: &Row) -> String {
    let rescue = match row.second {
        Second::Rescues => "; a second target rescues it",
        Second::NotAsked => "",
    };
    let gets = match row.gets {
        Gets::Unchanged => "the answer, byte for byte".to_owned(),
        Gets::Mended => "the same answer, its stream made whole".to_owned(),
        Gets::Refused(status, class) => format!("the endpoint's own {status} (`{class}`)"),
        Gets::Error(status, class) => format!("{status} `{class}`"),
        Gets::InStream(class) => format!("an error event `{class}` as the stream's last"),
    };
    let note = if row.note.is_empty() { String::new() } else { format!(" ({})", row.note) };
    format!("{gets}{rescue}{note}")
}

fn table() -> String {
    let mut out = String::from("| fault | test | what the client gets |\n|---|---|---|\n");
    for row in ROWS {
        let kind = if row.kind == Kind::Stream { "stream" } else { "whole answer" };
        out.push_str(&format!("| `{}` | `sockets::faults`, {kind} | {} |\n", row.fault, told(row)));
    }
    out
}

/// With `OUTRIGGER_BLESS=1` the table of the page is written anew.
#[test]
fn the_page_holds_the_rows() {
    const BEGIN: &str = "<!-- rows: written by the test that checks them -->\n";
    const END: &str = "<!-- end of rows -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/fault-coverage.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (found, tail) = rest.split_once(END).unwrap();
    if std::env::var_os("OUTRIGGER_BLESS").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}\n{}\n{END}{tail}", table())).unwrap();
        return;
    }
    assert_eq!(found.trim(), table().trim(), "run again with OUTRIGGER_BLESS=1");
}
