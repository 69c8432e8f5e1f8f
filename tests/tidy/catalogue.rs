//! The rule that holds the catalogue of faults to the tests it names, and the page that is written from it.
//!
//! Invariant: a case has something that shows it or a reason why there is nothing, and whatever is named is there, once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Deserialize;

use crate::scan::Source;

/// Faults are numbered up to here.
const FAULTS: u32 = 104;
/// Reports are numbered up to here, and some have letters.
const REPORTS: u32 = 73;
const LETTERS: [&str; 6] = ["16a", "16b", "16c", "31a", "31b", "68a"];

/// `tests/catalogue.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    faults: Vec<Group>,
    lessons: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    group: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// Number of a fault.
    id: Option<u32>,
    /// Numbers of the reports that a lesson comes from.
    #[serde(default)]
    from: Vec<String>,
    fault: String,
    outcome: String,
    #[serde(default)]
    tests: Vec<String>,
    #[serde(default)]
    rows: Vec<String>,
    later: Option<String>,
    not_here: Option<String>,
}

impl Case {
    fn is_shown(&self) -> bool {
        !self.tests.is_empty() || !self.rows.is_empty()
    }
}

impl Catalogue {
    /// Reads the file.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str(text).map_err(|error| format!("tests/catalogue.yaml: {error}"))
    }
}

/// What there is to be named.
pub struct Known {
    /// Test functions, and the files they are in.
    tests: BTreeMap<String, Vec<String>>,
    /// Scenarios, by the names of their files.
    scenarios: BTreeSet<String>,
    /// Stages of `tests/run` that are no tests of cargo's, and the texts of their drivers.
    drivers: BTreeMap<&'static str, String>,
    /// `docs/reference/fault-coverage.md`.
    coverage: String,
}

impl Known {
    /// Of the sources, the paths of all files, the drivers by their stages, and the page of the faults of the mock.
    pub fn of(sources: &[Source], paths: &[String], drivers: BTreeMap<&'static str, String>, coverage: String) -> Self {
        let mut tests: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for source in sources {
            for name in functions(&source.text) {
                tests.entry(name).or_default().push(source.path.clone());
            }
        }
        let scenario = |path: &String| Some(path.strip_prefix("tests/scenarios/")?.strip_suffix(".yaml")?.to_owned());
        Self { tests, scenarios: paths.iter().filter_map(scenario).collect(), drivers, coverage }
    }

    /// Where a test is to be found, from the page's folder.
    fn place(&self, test: &str) -> Result<String, String> {
        if let Some((stage, name)) = test.split_once(": ") {
            let said = self.drivers.get(stage).is_some_and(|text| {
                let quoted =
                    |what: &str| ["'", "\""].iter().any(|quote| text.contains(&format!("{quote}{what}{quote}")));
                quoted(name) || quoted(test)
            });
            return if said { Ok(format!("../../tests/{stage}")) } else { Err(format!("no stage checks `{test}`")) };
        }
        if self.scenarios.contains(test) {
            return Ok(format!("../../tests/scenarios/{test}.yaml"));
        }
        match self.tests.get(test).map(Vec::as_slice) {
            Some([path]) => Ok(format!("../../{path}")),
            Some(paths) => Err(format!("`{test}` is a test in each of {}", paths.join(", "))),
            None => Err(format!("there is no test or scenario `{test}`")),
        }
    }

    fn has_row(&self, fault: &str) -> bool {
        self.coverage.contains(&format!("| `{fault}` |"))
    }
}

/// The functions that bear the mark of a test.
fn functions(text: &str) -> Vec<String> {
    let (mut found, mut marked) = (Vec::new(), false);
    for line in text.lines().map(str::trim_start) {
        let name = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
        match name.filter(|_| marked).and_then(|rest| rest.split(['(', '<']).next()) {
            Some(name) => found.push(name.to_owned()),
            None if line.starts_with("#[test]") || line.starts_with("#[tokio::test") => marked = true,
            None => {}
        }
        marked &= name.is_none();
    }
    found
}

/// What is missing, doubled or unheard of.
pub fn check(catalogue: &Catalogue, known: &Known) -> Vec<String> {
    let mut wrong = Vec::new();
    let faults: Vec<&Case> = catalogue.faults.iter().flat_map(|group| &group.cases).collect();
    let lessons: Vec<&Case> = catalogue.lessons.iter().flat_map(|group| &group.cases).collect();
    for case in faults.iter().chain(&lessons) {
        let shown = case.is_shown();
        if shown == case.not_here.is_some() || (case.later.is_some() && !shown) {
            wrong.push(format!("{}: a test, or a reason why there is none, and not both", case.fault));
        }
        wrong.extend(
            case.tests.iter().filter_map(|test| known.place(test).err()).map(|what| format!("{}: {what}", case.fault)),
        );
        let strange = case.rows.iter().filter(|row| !known.has_row(row));
        wrong.extend(strange.map(|row| format!("{}: fault-coverage.md has no row `{row}`", case.fault)));
    }
    let ids = faults.iter().map(|case| case.id.unwrap_or_default().to_string());
    wrong.extend(once("fault", (1..=FAULTS).map(|id| id.to_string()), ids));
    let numbers = (1..=REPORTS).map(|id| id.to_string()).chain(LETTERS.map(str::to_owned));
    wrong.extend(once("report", numbers, lessons.iter().flat_map(|case| case.from.clone())));
    wrong
}

/// Whether these are all of those, each once.
fn once(what: &str, wanted: impl Iterator<Item = String>, have: impl Iterator<Item = String>) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = wanted.map(|id| (id, 0)).collect();
    let mut wrong = Vec::new();
    for id in have {
        match counts.get_mut(&id) {
            Some(count) => *count += 1,
            None => wrong.push(format!("there is no {what} {id}")),
        }
    }
    let odd = counts.into_iter().filter(|(_, count)| *count != 1);
    wrong.extend(odd.map(|(id, count)| format!("{what} {id} stands there {count} times")));
    wrong
}

const HEAD: &str = "# Faults, and the tests that show what comes of them

A proxy that is there for bad days is worth what it does on them. This page lists what can go wrong between a client, a gateway and
a model server, what must come of it, and the tests in which that is to be seen. Behind it stand the ways in which other proxies
have failed their users, as those users told it, and what is done here instead.

A row without a test says why. The page is written from `tests/catalogue.yaml` by the test that looks for every test it names, so
that it cannot promise what nobody checks. Names of functions lead to their files, names with hyphens are scenarios, and what looks
like a rule of the [mock](../reference/mock.md) is a row of [which fault is tested](../reference/fault-coverage.md). `sdk` and
`soak` are stages of `tests/run`; what the soak judges by, I2 or I16, is told under [histories](histories.md).
";

/// The page, as it must be.
pub fn page(catalogue: &Catalogue, known: &Known) -> String {
    let mut out = String::from(HEAD);
    let count = |groups: &[Group], what: fn(&Case) -> bool| {
        groups.iter().flat_map(|group| &group.cases).filter(|case| what(case)).count()
    };
    let parts: [(&str, &str, &[Group]); 2] = [
        ("Faults", "faults", &catalogue.faults),
        ("How others have failed their users", "lessons", &catalogue.lessons),
    ];
    for (title, what, groups) in parts {
        let (all, shown) = (count(groups, |_| true), count(groups, Case::is_shown));
        let partly = count(groups, |case| case.later.is_some());
        let none = all - shown;
        let _ = write!(
            out,
            "\n## {title}\n\n{all} {what}: {shown} shown by tests, {partly} of them in part; {none} not here.\n"
        );
        for group in groups {
            let _ = write!(out, "\n### {}\n\n", group.group);
            let number = if what == "faults" { "no." } else { "reports" };
            let _ =
                write!(out, "| {number} | what goes wrong | what must come of it | shown by |\n|---|---|---|---|\n");
            for case in &group.cases {
                let number = case.id.map_or_else(|| case.from.join(", "), |id| id.to_string());
                let _ = writeln!(out, "| {number} | {} | {} | {} |", case.fault, case.outcome, shown_by(case, known));
            }
        }
    }
    out
}

fn shown_by(case: &Case, known: &Known) -> String {
    let tests = case.tests.iter().map(|test| format!("[`{test}`]({})", known.place(test).unwrap_or_default()));
    let rows = case.rows.iter().map(|row| format!("[`{row}`](../reference/fault-coverage.md)"));
    let shown: Vec<String> = tests.chain(rows).collect();
    let later = case.later.iter().map(|what| format!("; still to come: {what}"));
    let none = case.not_here.iter().map(|why| format!("not here: {why}"));
    std::iter::once(shown.join(", ")).chain(later).chain(none).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let text = "#[test]\nfn a_b() {}\nproptest! {\n    #[test]\n    fn c_d(x in y()) {}\n}\nfn helper() {}\n\
                    #[tokio::test(flavor = \"x\")]\n// why\nasync fn e_f() {}\n#[test]\nfn twice() {}\n";
        let sources = [Source::new("src/x.rs", text), Source::new("tests/y.rs", "#[test]\nfn twice() {}\n")];
        let paths = ["tests/scenarios/a-b.yaml".to_owned()];
        let drivers = BTreeMap::from([("sdk", "@case(\"it raises\")".to_owned())]);
        Known::of(&sources, &paths, drivers, "| `hang: mid` | a | b |".into())
    }

    fn wrong(case: &str) -> Vec<String> {
        let text =
            format!("faults: [{{ group: G, cases: [{{ id: 1, fault: f, outcome: o, {case} }}] }}]\nlessons: []\n");
        let mut wrong = check(&Catalogue::parse(&text).expect("it parses"), &known());
        wrong.retain(|what| !what.contains("stands there 0 times"));
        wrong
    }

    #[test]
    fn what_is_named_and_there_passes() {
        assert_eq!(wrong("tests: [a_b, c_d, e_f, a-b, \"sdk: it raises\"]"), Vec::<String>::new());
        assert_eq!(wrong("rows: [\"hang: mid\"], later: more"), Vec::<String>::new());
        assert_eq!(wrong("not_here: of another floor"), Vec::<String>::new());
    }

    #[test]
    fn what_is_named_and_not_there_is_caught() {
        for case in [
            "tests: []",
            "tests: [helper]",
            "tests: [nobody]",
            "tests: [twice]",
            "tests: [a-c]",
            "tests: [\"sdk: it lowers\"]",
            "tests: [\"srd: it raises\"]",
            "tests: [a_b], not_here: and yet",
            "rows: [\"hang: head\"]",
            "not_here: why, later: more",
        ] {
            assert_eq!(wrong(case).len(), 1, "{case}: {:?}", wrong(case));
        }
    }

    #[test]
    fn numbers_that_are_missing_doubled_or_strange_are_caught() {
        let of = |ids: &[&str]| {
            once("fault", ["1", "2"].map(str::to_owned).into_iter(), ids.iter().map(|id| (*id).to_owned()))
        };
        assert_eq!(of(&["2", "1"]), Vec::<String>::new());
        for ids in [&["1"][..], &["1", "2", "2"], &["1", "2", "3"]] {
            assert_eq!(of(ids).len(), 1, "{ids:?}");
        }
        let text = "faults: []\nlessons: []\n";
        let none = check(&Catalogue::parse(text).expect("it parses"), &known());
        assert_eq!(none.len(), 104 + 73 + 6);
    }
}
