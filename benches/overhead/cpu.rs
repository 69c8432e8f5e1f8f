//! A server on a thread of its own, and the CPU time of that thread as the kernel counts it.
//!
//! Wall time on a shared machine measures the machine. The time a thread ran on a CPU is what a call costs.

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long a thread that has just answered may take to go idle.
const SETTLE: Duration = Duration::from_millis(2);

/// Starts this program anew on one core, unless it is on one already.
///
/// On several, waking a thread costs more or less by where the kernel has put it, and it stays there: the ratios
/// of two runs then differ by more than the proxies do.
pub fn on_one_core() {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux, with /proc");
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map_or("", str::trim);
    // A list such as `0-3,8`; the last is the least likely to serve interrupts.
    let Some(last) = cores.rsplit([',', '-']).next().filter(|last| *last != cores) else { return };
    let program = std::env::current_exe().expect("the path of this program");
    let error = Command::new("taskset").args(["-c", last]).arg(program).args(std::env::args_os().skip(1)).exec();
    eprintln!("the ratios will be unsteady: `taskset` cannot be run ({error})");
}

/// A server with a current-thread runtime of its own.
pub struct Server {
    /// Where it listens.
    pub at: SocketAddr,
    clock: PathBuf,
}

impl Server {
    /// Runs `start` on a new thread; what it returns beside the address is kept alive as long as the process is.
    pub fn start<F, K>(name: &str, start: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = (SocketAddr, K)>,
    {
        let (tell, told) = mpsc::channel();
        let body = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let (at, _keep) = start().await;
                // The link reads `<pid>/task/<tid>`.
                let me = std::fs::read_link("/proc/thread-self").expect("Linux, with /proc");
                tell.send(Self { at, clock: Path::new("/proc").join(me).join("schedstat") }).expect("who started us");
                std::future::pending::<()>().await;
            });
        };
        thread::Builder::new().name(name.to_owned()).spawn(body).expect("a thread");
        told.recv().expect("the server started")
    }

    /// CPU time its thread has used up to now, exact once the thread is idle.
    pub fn cpu(&self) -> Duration {
        thread::sleep(SETTLE);
        let text = std::fs::read_to_string(&self.clock).expect("schedstat");
        let nanos = text.split(' ').next().and_then(|first| first.parse().ok()).expect("nanoseconds on a CPU");
        Duration::from_nanos(nanos)
    }
}
