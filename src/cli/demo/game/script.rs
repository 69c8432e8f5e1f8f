//! What is rehearsed: for each scenario the traffic, the gateway's config, and phase by phase what becomes of the servers.

use std::time::Duration;

use crate::mock::Network;

/// Which story the demo tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Name {
    /// A bit of everything, to one of two servers
    BadDay,
    /// Both servers vanish from the network for a while
    Outage,
    /// One of two servers gets slow and fails three calls in ten
    Brownout,
    /// One of two servers goes away and comes back every 3 s
    Flap,
    /// A server limits the rate, then its quota is spent
    Ratelimit,
    /// Twice as many calls as there are places, of three priorities
    Overload,
}

/// One phase of a scenario.
pub struct Phase {
    /// What people read while it runs.
    pub title: &'static str,
    /// Its share of the whole time, in percent.
    pub share: u32,
    /// Whether something is wrong.
    pub fault: bool,
    /// What each of the two servers is like.
    pub servers: [Server; 2],
    /// Calls, as a multiple of the scenario's rate.
    pub load: f64,
}

/// What one server is like for a phase.
#[derive(Clone, Copy)]
pub struct Server {
    /// Its rules, in the mock's own scenario language.
    pub rules: &'static str,
    /// Its network.
    pub network: Network,
    /// Whether its network is so only every other while of this length, the first included.
    pub every_other: Option<Duration>,
}

/// How many calls there are.
pub enum Rate {
    /// So many each second.
    PerSecond(f64),
    /// As many as the server can serve, which is measured.
    Capacity,
}

/// One scenario.
pub struct Script {
    /// Its name.
    pub name: Name,
    /// What is about to happen, as the end of a sentence.
    pub what: &'static str,
    /// Calls on each way.
    pub rate: Rate,
    /// The route's targets, in the words of the config file.
    pub targets: &'static str,
    /// Further keys of each endpoint.
    pub endpoint: &'static str,
    /// How a server answers when all is well.
    pub answer: &'static str,
    /// Places at each server, if bounded.
    pub slots: Option<usize>,
    /// Whether calls carry priorities.
    pub priorities: bool,
    /// The phases; their shares add up to 100.
    pub phases: &'static [Phase],
}

const WELL: Server = Server { rules: "", network: Network::Up, every_other: None };

const fn rules(rules: &'static str) -> Server {
    Server { rules, ..WELL }
}

const fn network(network: Network) -> Server {
    Server { network, ..WELL }
}

const fn well(title: &'static str, share: u32, load: f64) -> Phase {
    Phase { title, share, fault: false, servers: [WELL, WELL], load }
}

const fn fault(title: &'static str, share: u32, first: Server, second: Server) -> Phase {
    Phase { title, share, fault: true, servers: [first, second], load: 1.0 }
}

const ANSWER: &str = "{ tokens: 24, first_token: 60ms, per_token: 4ms }";
const CHAIN: &str = "[north, south]";
const POOL: &str = "[{ balance: [north, south] }]";

/// How long a flapping server is gone, and how long it is there.
pub const FLAP: Duration = Duration::from_secs(3);
/// The phase of `ratelimit` in which the first server's quota is spent.
pub const SPENT: &str = "the quota of the first server is spent";

const SCRIPTS: &[Script] = &[
    Script {
        name: Name::Outage,
        what: "will vanish from the network, the first refusing and the second swallowing every connection, and return",
        rate: Rate::PerSecond(25.0),
        targets: CHAIN,
        endpoint: "",
        answer: ANSWER,
        slots: None,
        priorities: false,
        phases: &[
            well("calm", 10, 1.0),
            fault("both servers are gone", 35, network(Network::Refuse), network(Network::Blackhole)),
            well("both are back", 55, 1.0),
        ],
    },
    Script {
        name: Name::Brownout,
        what: "share the load, and the first will get slow and answer three calls in ten with a 500",
        rate: Rate::PerSecond(50.0),
        targets: POOL,
        endpoint: "",
        answer: ANSWER,
        slots: None,
        priorities: false,
        phases: &[
            well("calm", 10, 1.0),
            fault(
                "the first server is slow, and fails 30 %",
                70,
                rules("- { chance: 30%, do: { error: server_error } }\n- { do: { delay: { first_token: 400ms } } }"),
                WELL,
            ),
            well("it is well again", 20, 1.0),
        ],
    },
    Script {
        name: Name::Flap,
        what: "share the load, and the first will go away and come back every 3 s",
        rate: Rate::PerSecond(25.0),
        targets: POOL,
        endpoint: "",
        answer: ANSWER,
        slots: None,
        priorities: false,
        phases: &[
            well("calm", 10, 1.0),
            fault(
                "the first server comes and goes",
                70,
                Server { every_other: Some(FLAP), ..network(Network::Refuse) },
                WELL,
            ),
            well("it stays", 20, 1.0),
        ],
    },
    Script {
        name: Name::Ratelimit,
        what: "stand behind each other, and the first will limit the rate, then say that its quota is spent",
        rate: Rate::PerSecond(25.0),
        targets: CHAIN,
        endpoint: "",
        answer: ANSWER,
        slots: None,
        priorities: false,
        phases: &[
            well("calm", 10, 1.0),
            fault(
                "half of the calls get a 429 with Retry-After: 1",
                20,
                rules("- { chance: 50%, do: { error: rate_limit } }"),
                WELL,
            ),
            fault(
                "half of the calls get a 429 that does not say when to come back",
                20,
                rules("- { chance: 50%, do: { error: rate_limit, headers: { retry-after: \"\" } } }"),
                WELL,
            ),
            fault(SPENT, 35, rules("- { do: { error: quota } }"), WELL),
            well("the quota is paid", 15, 1.0),
        ],
    },
    Script {
        name: Name::Overload,
        what: "have 8 places each, one behind Outrigger and one asked directly, and will get twice what they can serve",
        rate: Rate::Capacity,
        targets: "[north]",
        endpoint: ", concurrency: { mode: fixed, max: 8 }",
        answer: "{ tokens: 20, first_token: 100ms, per_token: 5ms }",
        slots: Some(8),
        priorities: true,
        phases: &[
            well("half of what they can serve", 15, 0.5),
            Phase { load: 2.0, ..fault("twice what they can serve", 60, WELL, WELL) },
            well("half of it again", 25, 0.5),
        ],
    },
];

/// The scenario of this name; none for the bad day, which has a story of its own.
pub fn script(name: Name) -> Option<&'static Script> {
    SCRIPTS.iter().find(|script| script.name == name)
}

impl Script {
    /// When each phase of a story of this length begins and ends.
    pub fn times(&self, total: Duration) -> Vec<(Duration, Duration)> {
        let mut percent = 0;
        let at = |percent: u32| total * percent / 100;
        let next = |phase: &Phase| {
            let from = percent;
            percent += phase.share;
            (at(from), at(percent))
        };
        self.phases.iter().map(next).collect()
    }

    /// A server's scenario under these rules.
    pub fn scenario(&self, seed: u64, rules: &str) -> String {
        let slots = self.slots.map_or_else(String::new, |slots| format!("slots: {slots}\n"));
        let rules: String = rules.lines().map(|line| format!("  {}\n", line.trim())).collect();
        let rules = if rules.is_empty() { rules } else { format!("rules:\n{rules}") };
        format!("seed: {seed}\nanswer: {}\n{slots}{rules}", self.answer)
    }
}

impl Server {
    /// What its network is like this long after the phase began.
    pub fn network_at(&self, since: Duration) -> Network {
        let turn = self.every_other.map_or(0, |while_| since.as_millis() / while_.as_millis().max(1));
        if turn.is_multiple_of(2) { self.network } else { Network::Up }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::Scenario;

    #[test]
    fn every_scenario_can_be_played() {
        for script in SCRIPTS {
            assert_eq!(script.phases.iter().map(|phase| phase.share).sum::<u32>(), 100, "{:?}", script.name);
            let times = script.times(Duration::from_secs(40));
            assert_eq!((times[0].0, times[times.len() - 1].1), (Duration::ZERO, Duration::from_secs(40)));
            assert!(times.windows(2).all(|pair| pair[0].1 == pair[1].0));
            for server in script.phases.iter().flat_map(|phase| phase.servers) {
                let text = script.scenario(7, server.rules);
                assert!(Scenario::parse(&text).is_ok(), "{text}");
            }
        }
        assert!(script(Name::BadDay).is_none());
    }

    #[test]
    fn a_flapping_server_is_gone_first() {
        let server = Server { every_other: Some(FLAP), ..network(Network::Refuse) };
        let at = |ms| server.network_at(Duration::from_millis(ms));
        assert_eq!(
            [at(0), at(2999), at(3000), at(6000)],
            [Network::Refuse, Network::Refuse, Network::Up, Network::Refuse]
        );
        assert_eq!(network(Network::Reset).network_at(Duration::from_secs(9)), Network::Reset);
    }
}
