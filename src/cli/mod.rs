//! The command line: what it understands, and what becomes of each command.
//!
//! Owns parsing, dispatch and exit codes. Does no work itself: each command has its file. Invariant: data goes to
//! stdout and talk to stderr, so that a pipe only ever carries what was asked for.

mod breaker;
mod check;
mod config;
mod demo;
mod explain;
mod healthcheck;
mod instance;
mod output;
mod probe;
pub mod reference;
mod run;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{Loaded, Overrides, Report, load};

/// All was well.
pub const FINE: u8 = 0;
/// Something failed.
pub const FAILED: u8 = 1;
/// A goal was missed.
pub const MISSED: u8 = 3;
/// The config is wrong.
pub const BAD_CONFIG: u8 = 78;

/// Keeps calls to language models upright: retries, fallbacks and honest errors between an app and its model servers
#[derive(Debug, Parser)]
#[command(name = "outrigger", version, max_term_width = 100, after_help = AFTER)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER: &str = "\
Start without a file:  outrigger run --upstream http://127.0.0.1:11434/v1
Exit codes:            0 fine, 1 failed, 2 usage, 3 a goal missed, 78 bad config";

/// One command each.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the proxy
    Run(RunArgs),
    /// Show what Outrigger does, with model servers that misbehave; needs no key and no network
    Demo(DemoArgs),
    /// Start a stand-in model server that can misbehave on a script
    Mock(MockArgs),
    /// Check the config, then whether every endpoint can be reached
    Check(check::CheckArgs),
    /// Say which route, targets and policy a call gets, and where each value comes from
    Explain(explain::ExplainArgs),
    /// Write a config file, show the one in force, or print its schema
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Hold an endpoint of a running instance open or closed, or let its breaker decide again
    Breaker(breaker::BreakerArgs),
    /// Have a running instance read its config again; an error leaves it as it is
    Reload(instance::InstanceArgs),
    /// Have a running instance stop as at SIGTERM: finish its calls, accept no more, and end
    Drain(instance::InstanceArgs),
    /// Ask a running instance whether it lives; for a container's HEALTHCHECK
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Print shell completions
    Completions {
        /// The shell to complete for
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// `outrigger run`
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Config file [default: $OUTRIGGER_CONFIG, else ./outrigger.yaml]
    #[arg(short, long, value_name = "FILE", conflicts_with = "upstream")]
    pub config: Option<PathBuf>,
    /// Send every call to this base URL; needs no config file
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// Listen here for calls, instead of `server.listen`
    #[arg(long, value_name = "ADDR", env = "OUTRIGGER_LISTEN", hide_env_values = true)]
    pub listen: Option<SocketAddr>,
    /// Serve metrics, health and status here, instead of `admin.listen`
    #[arg(long, value_name = "ADDR", env = "OUTRIGGER_ADMIN", hide_env_values = true)]
    pub admin: Option<SocketAddr>,
    /// Reload the config when its file, or a secret's file that it names, holds something else
    #[arg(long, conflicts_with = "upstream")]
    pub watch: bool,
}

impl RunArgs {
    /// The settings that these arguments ask for.
    pub fn load(&self) -> Result<Loaded, Report> {
        let overrides = Overrides { listen: self.listen, admin: self.admin };
        load(self.config.as_deref(), self.upstream.as_deref(), &overrides)
    }
}

/// `outrigger demo`
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// What happens to the model servers
    #[arg(long, value_name = "NAME", value_enum, default_value = "bad-day")]
    pub scenario: demo::Name,
    /// How long the story takes
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Seed of everything that is random
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub seed: u64,
    /// Stop after the story instead of serving on
    #[arg(long)]
    pub once: bool,
    /// Print the numbers as JSON
    #[arg(long)]
    pub json: bool,
}

/// `outrigger mock`
#[derive(Clone, Debug, Args)]
pub struct MockArgs {
    /// Listen here
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8790")]
    pub listen: SocketAddr,
    /// Serve `/_mock` here too, where faults of the network do not reach
    #[arg(long, value_name = "ADDR")]
    pub control: Option<SocketAddr>,
    /// Misbehave as this file says
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// Seed of everything that is random [default: the scenario's, else 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Add a history of what comes in and what becomes of it to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

/// Which config a command looks at.
#[derive(Clone, Debug, Args)]
pub struct SourceArgs {
    /// Config file [default: $OUTRIGGER_CONFIG, else ./outrigger.yaml]
    #[arg(short, long, value_name = "FILE", conflicts_with = "upstream")]
    pub config: Option<PathBuf>,
    /// As `run --upstream` would have it, without a file
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
}

impl SourceArgs {
    fn load(&self) -> Result<Loaded, Report> {
        load(self.config.as_deref(), self.upstream.as_deref(), &Overrides::default())
    }
}

/// Parses the command line of this process and does what it says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::talk(&format!("outrigger: {error:#}\n"));
            ExitCode::from(FAILED)
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => {
            let met = run::runtime()?.block_on(demo::run(&args))?;
            Ok(if met { FINE } else { MISSED })
        }
        Command::Mock(args) => {
            let (scenario, record) = (args.scenario.as_deref(), args.record.as_deref());
            let served = crate::mock::serve_cli(args.listen, args.control, scenario, args.seed, record);
            run::runtime()?.block_on(served)?;
            Ok(FINE)
        }
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => Ok(explain::run(&args)),
        Command::Config(command) => config::run(&command),
        Command::Breaker(args) => breaker::run(&args),
        Command::Reload(args) => instance::reload(&args),
        Command::Drain(args) => instance::drain(&args),
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "outrigger", &mut text);
            output::data(&String::from_utf8_lossy(&text));
            Ok(FINE)
        }
        Command::Man => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut text)?;
            output::data(&String::from_utf8_lossy(&text));
            Ok(FINE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_file_and_an_upstream_exclude_each_other() {
        assert!(Cli::try_parse_from(["outrigger", "run", "-c", "x", "--upstream", "http://h"]).is_err());
        assert!(Cli::try_parse_from(["outrigger", "run", "--upstream", "http://h", "--listen", "127.0.0.1:1"]).is_ok());
    }
}
