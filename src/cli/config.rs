//! `outrigger config`: a file to start from, the settings in force, the schema.
//!
//! Invariant: a file that is there is never overwritten, and no secret is ever printed.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;

use super::{FAILED, FINE, SourceArgs, output};
use crate::config::{DEFAULT_FILE, schema, show, starter};

/// `outrigger config ...`
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Write a starter file with every key, its default and why it is there
    Init {
        /// Where to write it; `-` prints it
        #[arg(value_name = "FILE", default_value = DEFAULT_FILE)]
        file: PathBuf,
    },
    /// Print the settings in force, secrets as ***
    Show(SourceArgs),
    /// Print the JSON Schema of the config file
    Schema,
}

/// Runs the command.
pub fn run(command: &ConfigCommand) -> anyhow::Result<u8> {
    match command {
        ConfigCommand::Init { file } if file.as_os_str() == "-" => output::data(&starter::text()),
        ConfigCommand::Init { file } => return init(file),
        ConfigCommand::Show(source) => match source.load() {
            Ok(loaded) => {
                output::warnings(&loaded);
                output::data(&show::yaml(&loaded.settings));
            }
            Err(report) => return Ok(output::refuse(&report)),
        },
        ConfigCommand::Schema => output::data(&format!("{:#}\n", schema::schema())),
    }
    Ok(FINE)
}

fn init(file: &PathBuf) -> anyhow::Result<u8> {
    let name = file.display();
    match OpenOptions::new().write(true).create_new(true).open(file) {
        Ok(mut stream) => {
            stream.write_all(starter::text().as_bytes()).with_context(|| format!("cannot write `{name}`"))?;
            let flag = if file.as_os_str() == DEFAULT_FILE { String::new() } else { format!(" -c {name}") };
            output::talk(&format!(
                "wrote {name}\nnext: set the `url` of the endpoint in it, then `outrigger check{flag}` and `outrigger run{flag}`\n"
            ));
            Ok(FINE)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            output::talk(&format!(
                "outrigger: `{name}` is there already and stays as it is; name another file, or `-` to print\n"
            ));
            Ok(FAILED)
        }
        Err(error) => Err(error).with_context(|| format!("cannot write `{name}`")),
    }
}
