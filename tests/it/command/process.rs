//! A running `outrigger`, with everything it said.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Process {
    child: Child,
    said: Arc<Mutex<String>>,
    heard: Arc<Notify>,
    /// Base URL for clients.
    pub base: String,
    /// Address of the admin port.
    pub admin: String,
}

/// How it ended.
pub struct End {
    pub code: Option<i32>,
    pub said: String,
}

impl Process {
    /// Starts it, on free ports unless a config names some, and waits until it serves.
    pub async fn start(args: &[&str]) -> Self {
        Self::run(Command::new(env!("CARGO_BIN_EXE_outrigger")), args).await
    }

    /// The same with no more than so many files open at once, sockets included.
    pub async fn start_with_files(most: usize, args: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {most}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_outrigger")]);
        Self::run(shell, args).await
    }

    async fn run(mut command: Command, args: &[&str]) -> Self {
        command.args(args).env_remove("OUTRIGGER_CONFIG").env("NO_COLOR", "1");
        if args.contains(&"--upstream") {
            command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        }
        let mut child = command.stderr(Stdio::piped()).stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let (said, heard) = (Arc::new(Mutex::new(String::new())), Arc::new(Notify::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (ear, bell) = (Arc::clone(&said), Arc::clone(&heard));
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                ear.lock().unwrap().push_str(&format!("{line}\n"));
                bell.notify_waiters();
            }
            bell.notify_waiters();
        });
        let mut process = Self { child, said, heard, base: String::new(), admin: String::new() };
        process.until("admin http://").await;
        let said = process.said.lock().unwrap().clone();
        let after = |mark: &str| {
            let rest = &said[said.find(mark).unwrap() + mark.len()..];
            rest.split_whitespace().next().unwrap().to_owned()
        };
        process.base = after("OPENAI_BASE_URL=");
        process.admin = after("admin http://");
        process
    }

    /// All that it has said.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it has said this.
    pub async fn until(&self, words: &str) {
        self.until_times(words, 1).await;
    }

    /// Waits until it has said this so often.
    pub async fn until_times(&self, words: &str, times: usize) {
        let wait = async {
            loop {
                let heard = self.heard.notified();
                if self.said.lock().unwrap().matches(words).count() >= times {
                    return;
                }
                heard.await;
            }
        };
        let said = || self.said.lock().unwrap().clone();
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never said `{words}`: {}", said()));
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> End {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
        self.until("stopped").await;
        End { code: status.code(), said: self.said.lock().unwrap().clone() }
    }

    /// SIGTERM, and its end.
    pub async fn stop(self) -> End {
        self.signal("TERM");
        self.ended().await
    }

    /// SIGKILL, and all that it had said.
    pub async fn kill(mut self) -> String {
        self.child.kill().await.unwrap();
        self.said()
    }
}
