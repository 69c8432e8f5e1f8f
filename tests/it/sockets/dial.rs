//! Where calls go when a name leads elsewhere, and how long a connection is used.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger::app::{self, Running};
use outrigger::config::Settings;
use outrigger::mock::{self, Mock, Scenario};
use outrigger::transport::{Dialler, Found, Lookup};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::tools::{eventually, total};
use crate::support::{base, chat, gateway, http, metric, mock, post, settings};

/// A resolver that says what the test wants: addresses without their port, or nothing at all.
struct Zone(watch::Receiver<Option<Vec<[u8; 4]>>>);

impl Lookup for Zone {
    fn lookup(&self, _: String, port: u16) -> Found {
        let says = self.0.borrow().clone();
        Box::pin(async move {
            let addresses = says.ok_or_else(|| io::Error::other("no such name"))?;
            Ok(addresses.into_iter().map(|address| SocketAddr::from((address, port))).collect())
        })
    }
}

type Says = watch::Sender<Option<Vec<[u8; 4]>>>;

const ONE: [u8; 4] = [127, 0, 0, 1];
const TWO: [u8; 4] = [127, 0, 0, 2];

/// A gateway over `http://model.test:PORT/v1`, whose addresses are believed for a moment only.
async fn named(port: u16, says: Option<Vec<[u8; 4]>>, change: impl FnOnce(&mut Settings)) -> (Running, Says) {
    app::install_tls();
    let mut settings = settings(&[format!("http://model.test:{port}/v1")]);
    settings.endpoints[0].connections.dns_refresh = Duration::from_millis(50);
    change(&mut settings);
    let (says, heard) = watch::channel(says);
    let dialler = Dialler { lookup: Arc::new(Zone(heard)), ..Dialler::system() };
    (app::start_with(settings, dialler).await.unwrap(), says)
}

/// Two servers on one port of two addresses.
async fn twins(scenario: &str) -> (mock::Running, mock::Running) {
    loop {
        let one = mock(scenario).await;
        let other = SocketAddr::from((TWO, one.addr().port()));
        if let Ok(two) = Mock::start(other, Scenario::parse(scenario).unwrap()).await {
            return (one, two);
        }
    }
}

#[tokio::test]
async fn calls_follow_a_name_to_its_new_address_and_streams_finish_at_the_old() {
    let slow = "answer: { tokens: 60, per_token: 20ms }\nrules: [{ when: { stream: false }, do: { tokens: 1 } }]";
    let (old, new) = twins(slow).await;
    let (gateway, says) = named(old.addr().port(), Some(vec![ONE]), |_| {}).await;
    let (http, url) = (http(), format!("{}/chat/completions", base(&gateway)));
    let stream = tokio::spawn({
        let (http, url) = (http.clone(), url.clone());
        async move { post(&http, &url, chat(true)).await }
    });
    old.until(|stats| stats.active == 1).await;
    assert!(post(&http, &url, chat(false)).await.looks_complete());
    says.send_replace(Some(vec![TWO]));
    // The connection that lies in the pool is used again and again, and so never idle: it has to be left.
    let calls = || async { post(&http, &url, chat(false)).await.looks_complete() && new.stats().calls > 0 };
    eventually("a call at the new address", calls).await;
    let before = old.stats().calls;
    for _ in 0..10 {
        assert!(post(&http, &url, chat(false)).await.looks_complete());
    }
    assert_eq!(old.stats().calls, before, "nobody goes back");
    assert!(stream.await.unwrap().looks_complete(), "what runs at the old address runs to its end");
    assert_eq!(
        total(&http, &gateway, "outrigger_attempts_total", &["class=\"ok\""]).await,
        total(&http, &gateway, "outrigger_attempts_total", &[]).await
    );
}

#[tokio::test]
async fn a_server_that_moved_is_found_before_its_old_address_expires() {
    let (old, new) = twins("answer: { tokens: 1 }").await;
    let (gateway, says) = named(old.addr().port(), Some(vec![ONE]), |settings| {
        settings.endpoints[0].connections.dns_refresh = Duration::from_secs(3600);
        settings.endpoints[0].breaker.on = false;
    })
    .await;
    let (http, url) = (http(), format!("{}/chat/completions", base(&gateway)));
    assert!(post(&http, &url, chat(false)).await.looks_complete());
    says.send_replace(Some(vec![TWO]));
    old.stop().await;
    eventually("a call that finds it", || async { post(&http, &url, chat(false)).await.looks_complete() }).await;
    assert!(new.stats().calls > 0);
}

#[tokio::test]
async fn a_resolver_that_fails_changes_nothing_once_there_was_an_answer() {
    let upstream = mock("rules: [{ when: { stream: true }, do: { hang: mid } }]").await;
    let (gateway, says) = named(upstream.addr().port(), Some(vec![ONE]), |_| {}).await;
    let (http, url) = (http(), format!("{}/chat/completions", base(&gateway)));
    assert!(post(&http, &url, chat(false)).await.looks_complete());
    for nothing in [None, Some(Vec::new())] {
        says.send_replace(nothing);
        let failed = "outrigger_dns_lookups_total{endpoint=\"e0\",result=\"failed\"}";
        let before = metric(&http, gateway.admin(), failed).await;
        let calls = || async {
            assert!(post(&http, &url, chat(false)).await.looks_complete());
            metric(&http, gateway.admin(), failed).await > before
        };
        eventually("a lookup that failed", calls).await;
        // The pooled connection is taken, so this one is dialled.
        let connections = upstream.stats().connections;
        let held = tokio::spawn(http.post(&url).body(chat(true)).send());
        let held = held.await.unwrap().unwrap();
        assert!(post(&http, &url, chat(false)).await.looks_complete());
        assert!(upstream.stats().connections > connections);
        drop(held);
    }
}

#[tokio::test]
async fn a_name_that_never_led_anywhere_is_a_dns_failure() {
    let (gateway, says) = named(9, None, |settings| settings.routes[0].retry.attempts = 1).await;
    let (http, url) = (http(), format!("{}/chat/completions", base(&gateway)));
    for nothing in [None, Some(Vec::new())] {
        says.send_replace(nothing);
        let answer = post(&http, &url, chat(false)).await;
        assert_eq!(answer.error_code().as_deref(), Some("dns_failure"), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_hundred_addresses_of_which_few_answer_cost_no_call() {
    let upstream = mock("{}").await;
    let mut all: Vec<[u8; 4]> = (1..=100).map(|last| [127, 0, 9, last]).collect();
    all[3] = ONE;
    let (gateway, _) = named(upstream.addr().port(), Some(all), |_| {}).await;
    let http = http();
    assert!(post(&http, &format!("{}/chat/completions", base(&gateway)), chat(false)).await.looks_complete());
}

/// An address at which no connection comes about, and what keeps it so.
async fn silent(address: [u8; 4], port: u16) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((address, port))).unwrap();
    let listener = socket.listen(0).unwrap();
    let mut held = Vec::new();
    while let Ok(Ok(stream)) =
        timeout(Duration::from_millis(300), TcpStream::connect(SocketAddr::from((address, port)))).await
    {
        held.push(stream);
    }
    (listener, held)
}

#[tokio::test]
async fn an_address_that_is_silent_costs_a_moment_and_not_the_clock() {
    let upstream = mock("{}").await;
    let port = upstream.addr().port();
    let _silent = silent(TWO, port).await;
    let (gateway, _) = named(port, Some(vec![TWO, ONE]), |settings| {
        settings.routes[0].retry.attempts = 1;
        settings.endpoints[0].timeouts.connect = Duration::from_secs(10);
    })
    .await;
    let http = http();
    let answer = post(&http, &format!("{}/chat/completions", base(&gateway)), chat(false)).await;
    assert!(answer.looks_complete(), "{}", answer.text());
    assert_eq!(answer.header("x-outrigger-attempts"), Some("1"));
}

#[tokio::test]
async fn a_connection_past_its_age_takes_no_further_call_and_no_stream_is_cut() {
    let slow = "answer: { tokens: 40, per_token: 20ms }\nrules: [{ when: { stream: false }, do: { tokens: 1 } }]";
    let upstream = mock(slow).await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.endpoints[0].connections.max_age = Duration::from_millis(100);
    let gateway = gateway(settings).await;
    let (http, url) = (http(), format!("{}/chat/completions", base(&gateway)));
    let stream = tokio::spawn({
        let (http, url) = (http.clone(), url.clone());
        async move { post(&http, &url, chat(true)).await }
    });
    // Never idle for long: what ends it is its age.
    let calls = || async { post(&http, &url, chat(false)).await.looks_complete() && upstream.stats().connections >= 5 };
    eventually("a fifth connection", calls).await;
    assert!(stream.await.unwrap().looks_complete());
    assert_eq!(total(&http, &gateway, "outrigger_attempts_total", &[]).await, upstream.stats().calls as f64);
    let repeats = total(&http, &gateway, "outrigger_attempts_total", &["kind=\"retry\""]).await;
    assert_eq!(repeats, 0.0, "nobody met a connection that was just closed");
}

#[tokio::test]
async fn without_an_age_a_connection_is_kept() {
    let upstream = mock("{}").await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.endpoints[0].connections.max_age = Duration::ZERO;
    let gateway = gateway(settings).await;
    let http = http();
    for _ in 0..20 {
        assert!(post(&http, &format!("{}/chat/completions", base(&gateway)), chat(false)).await.looks_complete());
    }
    assert_eq!(upstream.stats().connections, 1);
}
