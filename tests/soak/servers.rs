//! The processes: a gateway and the stand-ins behind it.
//!
//! Owns starting, killing, stopping and ending them, and what the gateway logs. Kills nothing that it did not start.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::event::What;
use crate::{Notes, now};

/// The first two share a pool, the third is the fallback.
pub const MOCKS: usize = 3;
/// Longest wait for a process.
const PATIENCE: Duration = Duration::from_secs(20);

/// A stand-in that can be killed and come back.
pub struct Mock {
    pub address: SocketAddr,
    number: usize,
    seed: u64,
    folder: PathBuf,
    child: Option<Child>,
    /// What each life of it wrote, and when it was killed.
    pub lives: Vec<(PathBuf, Option<u64>)>,
}

impl Mock {
    fn new(folder: &Path, number: usize, seed: u64) -> Self {
        let address = free();
        let seed = seed * 10 + number as u64;
        Self { address, number, seed, folder: folder.to_owned(), child: None, lives: Vec::new() }
    }

    pub async fn up(&mut self) {
        let path = self.folder.join(format!("mock{}.{}.jsonl", self.number, self.lives.len()));
        let scenario = self.folder.join("scenario.yaml");
        std::fs::write(&scenario, "answer: { tokens: 12, first_token: 30ms, per_token: 10ms }\n").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
        command.args(["mock", "--listen", &self.address.to_string(), "--seed", &self.seed.to_string()]);
        command.arg("--scenario").arg(&scenario).arg("--record").arg(&path);
        let child = command.stderr(Stdio::null()).stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        self.child = Some(child);
        self.lives.push((path, None));
        reachable(self.address).await;
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
            self.lives.last_mut().unwrap().1 = Some(now());
        }
    }

    pub async fn signal(&self, name: &str) {
        signal(self.child.as_ref(), name).await;
    }

    /// Misbehaves as these rules say.
    pub async fn rules(&self, rules: &str) {
        let scenario =
            format!("seed: {}\nanswer: {{ tokens: 12, first_token: 30ms, per_token: 10ms }}\n{rules}", self.seed);
        let url = format!("http://{}/_mock/scenario", self.address);
        let sent = client().post(url).timeout(Duration::from_secs(2)).body(scenario).send().await;
        // It may be down or stopped; then it takes no rules, and starts without any.
        if let Ok(answer) = sent {
            assert_eq!(answer.status(), 200, "{rules}");
        }
    }
}

async fn signal(child: Option<&Child>, name: &str) {
    if let Some(pid) = child.and_then(Child::id) {
        let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().await.unwrap();
        assert!(status.success(), "kill -{name}");
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

async fn reachable(address: SocketAddr) {
    let mut tries = tokio::time::interval(Duration::from_millis(20));
    let up = async {
        while TcpStream::connect(address).await.is_err() {
            tries.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, up).await.expect("a process that listens");
}

/// A line of the gateway's log, and when it came.
pub type Line = (u64, Value);

pub struct Servers {
    pub mocks: Vec<Mock>,
    pub data: SocketAddr,
    admin: SocketAddr,
    config: PathBuf,
    gateway: Child,
    log: Arc<Mutex<Vec<Line>>>,
    logged: Option<tokio::task::JoinHandle<()>>,
}

/// What the soak's checks know of it stands in `story.rs`.
fn config(mocks: &[Mock], data: SocketAddr, admin: SocketAddr) -> String {
    let endpoint = |mock: &Mock| format!("  - {{ name: m{}, url: \"http://{}/v1\" }}\n", mock.number, mock.address);
    let endpoints: String = mocks.iter().map(endpoint).collect();
    format!(
        "version: 1\nserver: {{ listen: \"{data}\" }}\nadmin: {{ listen: \"{admin}\" }}\n\
         log: {{ format: json, level: info }}\ndrain: {{ timeout: 20s }}\nendpoints:\n{endpoints}\
         defaults:\n  timeouts: {{ connect: 500ms, headers: 3s, first_token: 1s, idle: 2s, total: 10s }}\n  \
         breaker: {{ open_for: 500ms, max_open: 2s }}\n  queue: {{ wait: 2s }}\n\
         routes:\n  - {{ name: chat, match: {{ model: \"*\" }}, targets: [{{ balance: [m0, m1] }}, m2] }}\n"
    )
}

impl Servers {
    pub async fn start(folder: &Path, seed: u64) -> Self {
        let mut mocks: Vec<Mock> = (0..MOCKS).map(|number| Mock::new(folder, number, seed)).collect();
        for mock in &mut mocks {
            mock.up().await;
        }
        let (data, admin) = (free(), free());
        let path = folder.join("outrigger.yaml");
        std::fs::write(&path, config(&mocks, data, admin)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
        command.arg("run").arg("--config").arg(&path).env("NO_COLOR", "1");
        let mut gateway = command.stderr(Stdio::piped()).stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, into) = (BufReader::new(gateway.stderr.take().unwrap()).lines(), Arc::clone(&log));
        let copy = folder.join("gateway.log");
        let logged = tokio::spawn(async move {
            let (mut lines, mut all) = (lines, String::new());
            while let Ok(Some(line)) = lines.next_line().await {
                all.push_str(&line);
                all.push('\n');
                if let Ok(value) = serde_json::from_str(&line) {
                    into.lock().unwrap().push((now(), value));
                }
            }
            std::fs::write(copy, all).unwrap();
        });
        reachable(data).await;
        reachable(admin).await;
        Self { mocks, data, admin, config: path, gateway, log, logged: Some(logged) }
    }

    /// The log's lines on calls.
    pub fn calls(&self) -> Vec<Line> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|(_, line)| line["target"] == "call" && line["outcome"].is_string()).cloned().collect()
    }

    pub async fn metrics(&self) -> String {
        client().get(format!("http://{}/metrics", self.admin)).send().await.unwrap().text().await.unwrap()
    }

    /// Waits until nothing runs any more, and says what still does.
    pub async fn rests(&self, notes: &Notes) -> Vec<String> {
        let wanted = ["outrigger_calls_in_flight", "outrigger_concurrency_in_use", "outrigger_queue_depth"];
        let mut tries = tokio::time::interval(Duration::from_millis(50));
        let mut busy = Vec::new();
        for _ in 0..100 {
            tries.tick().await;
            let text = self.metrics().await;
            let counts = text.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
            busy = counts.filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect();
            if busy.is_empty() {
                notes.tell(What::Rest { in_use: vec![0], waiting: vec![0], live: 0 });
                break;
            }
        }
        busy
    }

    /// Has the gateway read its config again: each time another one, and now and then one that is wrong.
    pub async fn reload(&self, number: u32) {
        let right = config(&self.mocks, self.data, self.admin);
        let text = if number % 4 == 3 { right.replace("max_open", "max_opne") } else { format!("{right}# {number}\n") };
        std::fs::write(&self.config, text).unwrap();
        signal(Some(&self.gateway), "HUP").await;
    }

    /// Ends all of them, and says what would not.
    pub async fn end(&mut self) -> Vec<String> {
        signal(Some(&self.gateway), "TERM").await;
        let ended = tokio::time::timeout(PATIENCE, self.gateway.wait()).await;
        let wrong = match ended {
            Ok(Ok(status)) if status.success() => Vec::new(),
            other => vec![format!("{other:?}")],
        };
        if let Some(logged) = self.logged.take() {
            drop(tokio::time::timeout(PATIENCE, logged).await);
        }
        for mock in &mut self.mocks {
            mock.kill().await;
        }
        wrong
    }
}
