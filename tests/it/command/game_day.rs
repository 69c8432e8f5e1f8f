//! Every game day, shortly: that its figures are there, and that they add up. How good they are is for a longer run.

use serde_json::Value;

use super::output;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn sum<'a>(values: impl IntoIterator<Item = &'a Value>, key: &str) -> f64 {
    values.into_iter().map(|value| number(&value[key])).sum()
}

/// A row of sums that is consistent in itself.
fn consistent(row: &Value, through: bool) {
    let of = |key: &str| number(&row[key]);
    assert_eq!(of("good") + of("lost") + of("cut"), of("calls"), "{row}");
    let ratio = if of("calls") == 0.0 { 1.0 } else { of("good") / of("calls") };
    assert!((of("success_ratio") - ratio).abs() < 1e-3, "{row}");
    let failed = of("good") < of("calls");
    assert_eq!(row["failed_p50_ms"].is_f64(), failed, "{row}");
    assert!(!failed || of("failed_p50_ms") <= of("failed_p99_ms"), "{row}");
    assert_eq!(row.get("sends").is_some(), through, "only the gateway tells of sends");
    if through {
        assert!((of("amplification") - of("sends") / of("calls").max(1.0)).abs() < 1e-3, "{row}");
        assert!(of("unsent") <= of("lost"), "{row}");
    }
}

/// Runs one and checks all that every scenario has.
fn played(scenario: &str) -> Value {
    let (code, stdout, stderr) = output(&["demo", "--scenario", scenario, "--once", "--json", "--seconds", "4"]);
    let told: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
    assert_eq!(
        (told["scenario"].as_str(), told["seconds"].as_u64(), told["seed"].as_u64()),
        (Some(scenario), Some(4), Some(7))
    );
    let goals = told["goals"].as_array().unwrap();
    assert!(goals.iter().all(|goal| goal["goal"].is_string() && goal["measured"].is_string()), "{told}");
    let met = !goals.is_empty() && goals.iter().all(|goal| goal["met"] == true);
    assert_eq!((told["met"].as_bool(), code), (Some(met), if met { 0 } else { 3 }), "{told}");

    let phases = told["phases"].as_array().unwrap();
    assert_eq!((number(&phases[0]["from_seconds"]), number(&phases[phases.len() - 1]["to_seconds"])), (0.0, 4.0));
    for (way, through) in [("direct", false), ("outrigger", true)] {
        let rows: Vec<&Value> = phases.iter().map(|phase| &phase[way]).collect();
        let faults: Vec<&Value> =
            phases.iter().filter(|phase| phase["fault"] == true).map(|phase| &phase[way]).collect();
        rows.iter().for_each(|row| consistent(row, through));
        consistent(&told["fault"][way], through);
        let all = number(&told[way]["calls"]);
        assert!(all > 20.0, "{told}");
        assert_eq!(sum(rows.iter().copied(), "calls"), all);
        let ratio = sum(rows.iter().copied(), "good") / all;
        assert!((number(&told[way]["success_ratio"]) - ratio).abs() < 1e-3, "{told}");
        for key in ["calls", "good", "lost", "cut"] {
            assert_eq!(sum(faults.iter().copied(), key), number(&told["fault"][way][key]), "{key}");
        }
        if through {
            assert_eq!(sum(faults.iter().copied(), "sends"), number(&told["fault"][way]["sends"]));
            let sends = sum(rows.iter().copied(), "sends") / all;
            assert!((number(&told[way]["sends_per_call"]) - sends).abs() < 1e-2, "{told}");
        }
        assert_eq!(number(&told["direct"]["calls"]), all, "both ways get the same calls");
    }
    for key in ["first_good_seconds", "steady_seconds"] {
        let recovery = &told["recovery"][key];
        assert!(recovery.is_null() || (0.0..=14.0).contains(&number(recovery)), "{told}");
    }
    told
}

#[test]
fn an_outage_is_told_with_what_it_may_cost() {
    let told = played("outage");
    let fault = &told["fault"]["outrigger"];
    assert_eq!(number(&fault["allowed_sends"]), (number(&fault["calls"]) * 1.1).floor() + 6.0);
    assert_eq!(told["fault"]["direct"]["good"], 0, "nobody is there: {told}");
    if let Some(after) = fault["after_trip"].as_object() {
        consistent(&Value::Object(after.clone()), true);
        assert!(number(&after["unsent"]) >= 1.0, "{told}");
    }
}

#[test]
fn a_brownout_is_worse_for_those_who_ask_directly() {
    let told = played("brownout");
    let of = |way: &str| number(&told["fault"][way]["success_ratio"]);
    assert!(of("outrigger") > of("direct"), "{told}");
}

#[test]
fn a_flapping_server_is_gone_for_a_while() {
    let told = played("flap");
    assert!(number(&told["fault"]["direct"]["lost"]) > 0.0, "{told}");
}

#[test]
fn a_spent_quota_is_counted() {
    let told = played("ratelimit");
    let spent = number(&told["sends_to_spent_quota"]);
    let phase = told["phases"].as_array().unwrap().iter().rfind(|phase| phase["fault"] == true).unwrap();
    assert!(spent <= number(&phase["outrigger"]["sends"]), "{told}");
    assert_eq!(phase["direct"]["good"], 0, "{told}");
}

#[test]
fn an_overload_is_told_by_priority() {
    let told = played("overload");
    for (way, through) in [("direct", false), ("outrigger", true)] {
        let rows: Vec<&Value> = told["priorities"][way].as_object().unwrap().values().collect();
        assert_eq!(rows.len(), 3);
        rows.iter().for_each(|row| consistent(row, through));
        for key in ["calls", "good", "lost", "cut"] {
            assert_eq!(sum(rows.iter().copied(), key), number(&told["fault"][way][key]), "{key}");
        }
    }
    assert!(number(&told["capacity_per_second"]) > 0.0 && number(&told["goodput_per_second"]) > 0.0, "{told}");
}

#[test]
fn there_is_no_other_scenario() {
    let (code, _, stderr) = output(&["demo", "--scenario", "earthquake"]);
    assert_eq!(code, 2);
    for name in ["bad-day", "outage", "brownout", "flap", "ratelimit", "overload"] {
        assert!(stderr.contains(name), "{stderr}");
    }
}
