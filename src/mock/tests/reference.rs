//! The reference page and the samples say what the parser knows.

use std::path::Path;

use crate::mock::{Scenario, VOCABULARY, WORDS};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The tables of the page, as they must stand in it.
fn tables() -> String {
    let mut out = String::from("| key | what it does |\n|---|---|\n");
    for (key, meaning) in VOCABULARY {
        out.push_str(&format!("| `{key}` | {meaning} |\n"));
    }
    for (key, words) in WORDS {
        out.push_str(&format!("\n### `{key}`\n\n| word | meaning |\n|---|---|\n"));
        for (word, meaning) in *words {
            out.push_str(&format!("| `{word}` | {meaning} |\n"));
        }
    }
    out
}

/// With `OUTRIGGER_BLESS=1` the tables of the page are written anew.
#[test]
fn the_reference_page_holds_the_parsers_own_tables() {
    const BEGIN: &str = "<!-- tables: written by the test that checks them -->\n";
    const END: &str = "<!-- end of tables -->";
    let path = root().join("docs/reference/mock.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (head, rest) = page.split_once(BEGIN).expect("the begin mark");
    let (found, tail) = rest.split_once(END).expect("the end mark");
    if std::env::var_os("OUTRIGGER_BLESS").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}\n{}\n{END}{tail}", tables())).expect("writes");
        return;
    }
    assert_eq!(found.trim(), tables().trim(), "run again with OUTRIGGER_BLESS=1");
}

#[test]
fn the_parser_knows_every_key_and_no_other() {
    let wrong = Scenario::parse("rules:\n  - do: { nonesuch: 1 }").expect_err("an unknown key");
    for (key, _) in VOCABULARY {
        assert!(wrong.contains(key), "{key} is not in: {wrong}");
    }
}

#[test]
fn the_samples_and_the_pages_own_scenarios_parse() {
    for name in ["bad-day.yaml", "flaky.yaml"] {
        let yaml = std::fs::read_to_string(root().join("config/mock").join(name)).expect("the sample");
        Scenario::parse(&yaml).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let page = std::fs::read_to_string(root().join("docs/reference/mock.md")).expect("the page");
    let snippets: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|s| s.split("```").next()).collect();
    for (key, _) in VOCABULARY {
        assert!(snippets.iter().any(|s| s.contains(&format!(" {key}: "))), "no example of {key}");
    }
    for snippet in snippets {
        Scenario::parse(snippet).unwrap_or_else(|e| panic!("{e}\n{snippet}"));
    }
}
