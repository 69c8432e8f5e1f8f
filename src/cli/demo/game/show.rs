//! How a game day is told: lines for people, one object for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::show::{HEAD, rescued, row};
use super::super::tally::Tally;
use super::goals::{Goal, allowed_sends, ms};
use super::record::{Figures, Record};
use super::script::{Name, Script};

/// The priorities, highest first.
pub const PRIORITIES: [&str; 3] = ["critical", "default", "sheddable"];

/// Everything that is known at the end.
pub struct End<'a> {
    /// What was played.
    pub script: &'a Script,
    /// Every call.
    pub record: &'a Record,
    /// The promises.
    pub goals: &'a [Goal],
    /// The calls of the whole story, made directly and through the gateway.
    pub ways: [&'a Tally; 2],
    /// The length of the story.
    pub seconds: u64,
    /// The seed of every draw.
    pub seed: u64,
}

impl End<'_> {
    /// For people.
    pub fn text(&self) -> String {
        let [direct, through] = self.ways;
        let (from, to) = self.record.fault_time();
        let mut out = format!("\n{HEAD}\n{}\n{}\n\n", row("direct", direct), row("through Outrigger", through));
        let _ = writeln!(
            out,
            "  sends upstream per call: {:.2}    rescued: {}    lost: {}    ({} s, seed {})\n",
            through.sends_per_call(),
            rescued(through),
            through.calls() - through.good(),
            self.seconds,
            self.seed
        );
        let _ = writeln!(out, "  while it was wrong, {:.1} s to {:.1} s:", from.as_secs_f64(), to.as_secs_f64());
        let _ = writeln!(
            out,
            "                        calls    good      lost     cut   failed after p50 / p99     sends   per call"
        );
        for (name, way) in [("direct", false), ("through Outrigger", true)] {
            let sums = Figures::of(self.record.faulty(way));
            let sends = if way {
                format!("{:>9} {:>10.2}", sums.sends, sums.amplification())
            } else {
                format!("{:>9} {:>10}", "-", "-")
            };
            let _ = writeln!(
                out,
                "  {name:<18} {:>8} {:>7} {:>9} {:>7} {:>13} / {:<9} {sends}",
                sums.calls,
                sums.good,
                sums.lost,
                sums.cut,
                ms(sums.failed_after(50.0)),
                ms(sums.failed_after(99.0))
            );
        }
        out.push('\n');
        self.extras(&mut out);
        self.verdict(&mut out);
        out
    }

    fn extras(&self, out: &mut String) {
        let record = self.record;
        let after = |time: Option<Duration>| {
            time.map_or_else(|| "not in this run".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()))
        };
        let _ = writeln!(
            out,
            "  after its end: first good answer {}, steady from {}",
            after(record.first_good()),
            after(record.steady())
        );
        if let Some(spent) = record.spent {
            let _ = writeln!(out, "  sends to the credential whose quota was spent: {spent}");
        }
        if let Some(capacity) = record.capacity {
            let _ = writeln!(
                out,
                "  the server can serve {capacity:.1} calls a second; good answers through Outrigger: {:.1}",
                record.goodput()
            );
        }
        if self.script.priorities {
            for priority in PRIORITIES {
                let [direct, through] = [false, true].map(|way| self.of_priority(way, priority));
                let _ = writeln!(
                    out,
                    "  {priority:<9}  good: {:>6.2} % direct, {:>6.2} % through Outrigger, of {} calls",
                    direct.success() * 100.0,
                    through.success() * 100.0,
                    through.calls
                );
            }
        }
    }

    fn verdict(&self, out: &mut String) {
        out.push('\n');
        for goal in self.goals {
            let met = if goal.met { "met   " } else { "missed" };
            let _ = writeln!(out, "  {met}  {}: {}", goal.goal, goal.measured);
        }
    }

    fn of_priority(&self, way: bool, priority: &str) -> Figures {
        Figures::of(self.record.faulty(way).filter(|seen| seen.priority == Some(priority)))
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let [direct, through] = self.ways;
        let record = self.record;
        let phases = self.script.phases.iter().zip(&record.times).enumerate().map(|(number, (phase, (from, to)))| {
            let [direct, through] =
                [false, true].map(|way| Figures::of(record.way(way).filter(|seen| seen.phase == number)));
            json!({
                "name": phase.title, "fault": phase.fault,
                "from_seconds": from.as_secs_f64(), "to_seconds": to.as_secs_f64(),
                "direct": sums(&direct, false), "outrigger": sums(&through, true),
            })
        });
        let [in_direct, in_through] = [false, true].map(|way| Figures::of(record.faulty(way)));
        let (from, to) = record.fault_time();
        let mut told = json!({
            "scenario": super::super::name(self.script.name),
            "direct": direct.json(),
            "outrigger": through.gateway_json(),
            "seed": self.seed,
            "seconds": self.seconds,
            "phases": phases.collect::<Vec<_>>(),
            "fault": { "direct": sums(&in_direct, false), "outrigger": sums(&in_through, true) },
            "recovery": {
                "first_good_seconds": record.first_good().map(seconds),
                "steady_seconds": record.steady().map(seconds),
            },
            "goals": self.goals.iter().map(|goal| {
                json!({ "goal": goal.goal, "measured": goal.measured, "met": goal.met })
            }).collect::<Vec<_>>(),
            "met": self.goals.iter().all(|goal| goal.met),
        });
        if self.script.name == Name::Outage {
            told["fault"]["outrigger"]["allowed_sends"] = json!(allowed_sends(in_through.calls, to - from));
            told["fault"]["outrigger"]["after_trip"] =
                record.after_the_trip().map_or(Value::Null, |after| sums(&after, true));
        }
        if let Some(spent) = record.spent {
            told["sends_to_spent_quota"] = json!(spent);
        }
        if let Some(capacity) = record.capacity {
            told["capacity_per_second"] = json!(round(capacity));
            told["goodput_per_second"] = json!(round(record.goodput()));
        }
        if self.script.priorities {
            let way = |way| {
                let of = |priority: &str| (priority.to_owned(), sums(&self.of_priority(way, priority), way));
                PRIORITIES.map(of).into_iter().collect::<Map<_, _>>()
            };
            told["priorities"] = json!({ "direct": way(false), "outrigger": way(true) });
        }
        told
    }
}

fn sums(sums: &Figures, through: bool) -> Value {
    let mut told = json!({
        "calls": sums.calls,
        "good": sums.good,
        "lost": sums.lost,
        "cut": sums.cut,
        "success_ratio": round(sums.success()),
        "failed_p50_ms": sums.failed_after(50.0).map(|time| round(time.as_secs_f64() * 1e3)),
        "failed_p99_ms": sums.failed_after(99.0).map(|time| round(time.as_secs_f64() * 1e3)),
    });
    if through {
        told["sends"] = json!(sums.sends);
        told["unsent"] = json!(sums.unsent);
        told["amplification"] = json!(round(sums.amplification()));
    }
    told
}

fn seconds(time: Duration) -> f64 {
    round(time.as_secs_f64())
}

fn round(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}
