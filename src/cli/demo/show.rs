//! How the demo looks: a table that redraws itself on a terminal, plain lines anywhere else. All of it is talk, so it goes
//! to standard error; only the result of `--json` is data.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::story::ACTS;
use super::tally::Tally;

/// The head of the table.
pub const HEAD: &str =
    "                        calls    good     success   looked fine, was not   first word p50 / p99";

/// Draws the run as it goes.
pub struct Show {
    live: bool,
    drawn: usize,
    quiet: bool,
    last_act: Option<usize>,
}

impl Show {
    /// `quiet` shows nothing.
    pub fn new(quiet: bool) -> Self {
        Self { live: std::io::stderr().is_terminal(), drawn: 0, quiet, last_act: None }
    }

    /// One frame of the story.
    pub fn frame(&mut self, act: usize, elapsed: Duration, total: Duration, direct: &Tally, through: &Tally) {
        if self.quiet {
            return;
        }
        let title = ACTS.get(act).map_or("", |act| act.title);
        if !self.live {
            if self.last_act != Some(act) {
                self.say(&format!("{:>4.0} s  {title}", elapsed.as_secs_f64()));
            }
            self.last_act = Some(act);
            self.say(&format!("        direct {}   through Outrigger {}", short(direct), short(through)));
            return;
        }
        let left = total.saturating_sub(elapsed).as_secs();
        let lines = [
            format!("  a bad day, act {} of {}: {title}   ({left} s left)", act + 1, ACTS.len()),
            String::new(),
            HEAD.to_owned(),
            row("direct", direct),
            row("through Outrigger", through),
            String::new(),
            format!("  rescued: {}", rescued(through)),
        ];
        let mut frame = String::new();
        if self.drawn > 0 {
            frame.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in &lines {
            frame.push_str(&format!("\x1b[2K{line}\n"));
        }
        self.drawn = lines.len();
        self.write(&frame);
    }

    /// The end of the story.
    pub fn end(&self, total: Duration, direct: &Tally, through: &Tally, seed: u64) {
        if self.quiet {
            return;
        }
        let lost = through.calls() - through.good();
        self.say(&format!(
            "\n{HEAD}\n{}\n{}\n\n  sends upstream per call: {:.2}    rescued: {}    lost: {lost}    ({} s, seed {seed})",
            row("direct", direct),
            row("through Outrigger", through),
            through.sends_per_call(),
            rescued(through),
            total.as_secs(),
        ));
    }

    /// A line of talk.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            self.write(&format!("{line}\n"));
        }
    }

    fn write(&self, text: &str) {
        let mut out = std::io::stderr().lock();
        // A terminal that went away is no reason to stop.
        drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    }
}

/// Good answers, calls and their share, in a few letters.
pub fn short(tally: &Tally) -> String {
    format!("{:>4}/{:<4} {:>6.2} %", tally.good(), tally.calls(), tally.success() * 100.0)
}

/// A row of the table.
pub fn row(name: &str, tally: &Tally) -> String {
    let ms = |percentile| tally.first_ms(percentile).map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms"));
    format!(
        "  {name:<18} {:>8} {:>7} {:>9.2} % {:>20} {:>16} / {}",
        tally.calls(),
        tally.good(),
        tally.success() * 100.0,
        tally.deceived(),
        ms(50.0),
        ms(99.0),
    )
}

/// Good answers that took more than the first send, by how.
pub fn rescued(tally: &Tally) -> String {
    let ways: Vec<String> = tally.rescued().iter().map(|(how, count)| format!("{count} {how}")).collect();
    if ways.is_empty() { "none yet".to_owned() } else { ways.join(", ") }
}
