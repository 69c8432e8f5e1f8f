//! A name over time, on a clock that stands still: what is asked, what is kept, who waits.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::time::{advance, timeout};

use super::*;

#[derive(Clone)]
enum Says {
    Addresses(Vec<u8>),
    Nothing,
    Hangs,
}

/// A resolver that says what the test wants.
struct Zone {
    says: watch::Receiver<Says>,
    asked: Arc<AtomicU32>,
}

impl Lookup for Zone {
    fn lookup(&self, _: String, port: u16) -> Found {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let says = self.says.borrow().clone();
        Box::pin(async move {
            match says {
                Says::Addresses(last) => Ok(last.into_iter().map(|last| at(last, port)).collect()),
                Says::Nothing => Err(io::Error::other("no such name")),
                Says::Hangs => std::future::pending().await,
            }
        })
    }
}

/// Keeps what it is told of lookups.
struct Kept(tokio::sync::mpsc::UnboundedSender<(bool, bool, usize)>);

impl Sink for Kept {
    fn emit(&self, signal: Signal) {
        if let Signal::Lookup { trouble, turned, known, .. } = signal {
            self.0.send((trouble.is_none(), turned, known)).unwrap();
        }
    }
}

const CLOCK: Duration = Duration::from_secs(2);

fn at(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], port))
}

struct Test {
    place: Place,
    says: watch::Sender<Says>,
    asked: Arc<AtomicU32>,
    told: tokio::sync::mpsc::UnboundedReceiver<(bool, bool, usize)>,
}

fn test(says: Says) -> Test {
    let (says, heard) = watch::channel(says);
    let asked = Arc::new(AtomicU32::new(0));
    let lookup: Arc<dyn Lookup> = Arc::new(Zone { says: heard, asked: Arc::clone(&asked) });
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let sink: Arc<dyn Sink> = Arc::new(Kept(tell));
    let url = Uri::from_static("http://model.test:81/v1");
    let place = Place::of(&url, &lookup, Duration::from_secs(30), Some((sink, 0)));
    Test { place, says, asked, told }
}

impl Test {
    async fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        self.place.addresses(CLOCK).await.map_err(|error| error.to_string())
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

#[test]
fn an_address_in_the_url_is_never_looked_up() {
    let lookup: Arc<dyn Lookup> = Arc::new(SystemLookup);
    for (url, address) in [
        ("http://127.0.0.1:8080/v1", "127.0.0.1:8080"),
        ("http://[::1]:8080/v1", "[::1]:8080"),
        ("https://10.0.0.1", "10.0.0.1:443"),
        ("http://10.0.0.1", "10.0.0.1:80"),
    ] {
        match Place::of(&url.parse().unwrap(), &lookup, Duration::from_secs(30), None) {
            Place::Address(found) => assert_eq!(found, address.parse().unwrap()),
            Place::Name(_) => panic!("{url} is no name"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_holds_for_its_time_and_a_change_is_seen_after_it() {
    let test = test(Says::Addresses(vec![1]));
    assert_eq!(test.addresses().await, Ok(vec![at(1, 81)]));
    test.says.send_replace(Says::Addresses(vec![2]));
    advance(Duration::from_secs(29)).await;
    assert_eq!(test.addresses().await, Ok(vec![at(1, 81)]));
    assert_eq!(test.asked(), 1);
    advance(Duration::from_secs(1)).await;
    assert_eq!(test.addresses().await, Ok(vec![at(2, 81)]));
    assert_eq!(test.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_last_good_addresses_outlive_any_failure_and_it_is_told_once() {
    let mut test = test(Says::Addresses(vec![1, 2]));
    assert_eq!(test.addresses().await.map(|all| all.len()), Ok(2));
    for says in [Says::Nothing, Says::Addresses(vec![]), Says::Hangs, Says::Nothing] {
        test.says.send_replace(says);
        advance(Duration::from_secs(60)).await;
        let waiting = clock::now();
        assert_eq!(test.addresses().await.map(|all| all.len()), Ok(2));
        assert!(clock::now() - waiting <= PATIENCE, "an old answer is at hand");
        tokio::time::sleep(LONGEST).await; // paces the load, not a wait
    }
    test.says.send_replace(Says::Addresses(vec![3]));
    advance(Duration::from_secs(60)).await;
    assert_eq!(test.addresses().await, Ok(vec![at(3, 81)]));
    let mut told = Vec::new();
    while let Ok(one) = test.told.try_recv() {
        told.push(one);
    }
    let (ok, failing) = ((true, false, 2), |turned| (false, turned, 2));
    assert_eq!(told, [ok, failing(true), failing(false), failing(false), failing(false), (true, true, 1)]);
}

#[tokio::test(start_paused = true)]
async fn without_a_good_answer_ever_it_fails_and_says_why() {
    let mut test = test(Says::Nothing);
    assert_eq!(test.addresses().await, Err("name lookup failed: no such name".to_owned()));
    test.says.send_replace(Says::Addresses(vec![]));
    assert_eq!(test.addresses().await, Err("name lookup failed: the name has no address".to_owned()));
    test.says.send_replace(Says::Hangs);
    assert_eq!(test.addresses().await, Err("name lookup failed: no answer within 1800 ms".to_owned()));
    for _ in 0..3 {
        test.told.recv().await.unwrap();
    }
    test.says.send_replace(Says::Addresses(vec![7]));
    assert_eq!(test.addresses().await, Ok(vec![at(7, 81)]), "and it is asked again at once");
}

#[tokio::test(start_paused = true)]
async fn many_dials_share_one_lookup_and_leaving_does_not_end_it() {
    let test = test(Says::Hangs);
    let left = timeout(Duration::from_secs(1), test.place.addresses(CLOCK)).await;
    assert!(left.is_err());
    let many = (0..50).map(|_| test.addresses());
    let found = futures_util::future::join_all(many).await;
    assert!(found.iter().all(Result::is_err));
    assert_eq!(test.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn use_alone_keeps_a_name_fresh_and_who_is_gone_is_noticed() {
    let test = test(Says::Addresses(vec![1, 2]));
    test.addresses().await.unwrap();
    let (one, two) = (test.place.left(at(1, 81)), test.place.left(at(2, 81)));
    test.says.send_replace(Says::Addresses(vec![2]));
    let used = async {
        for _ in 0..70 {
            test.place.touch();
            tokio::time::sleep(Duration::from_secs(1)).await; // paces the load, not a wait
        }
    };
    let since = clock::now();
    let left = async {
        one.await;
        clock::now() - since
    };
    let (left, ()) = tokio::join!(left, used);
    assert!(left <= Duration::from_secs(62), "{left:?}");
    assert_eq!(test.asked(), 3);
    assert!(timeout(Duration::from_secs(600), two).await.is_err(), "who is still there is left alone");
}
