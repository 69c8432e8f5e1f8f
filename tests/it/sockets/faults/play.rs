//! One gateway over all rows: for each its own misbehaving server, a route to it alone, and one with a healthy target.

use std::time::Duration;

use outrigger::app;
use outrigger::mock;
use outrigger::policy::{
    Backoff, QUEUE_WAIT, RetrySettings, RouteSettings, StreamMode, StreamSettings, Target, Timeouts,
};

use super::rows::{Ask, Gets, Kind, Row, Second};
use crate::support::{self, Answer, base, gateway, http, said, settings};

/// Short clocks, so that what hangs is soon known to hang.
const SHORT: Timeouts = Timeouts {
    connect: Duration::from_secs(1),
    headers: Duration::from_millis(400),
    first_token: Duration::from_millis(300),
    idle: Duration::from_millis(400),
    total: Duration::from_secs(2),
};
/// Clocks for rows that are not about time, so that a busy machine does not bring time into them.
const LONG: Timeouts = Timeouts {
    connect: Duration::from_secs(10),
    headers: Duration::from_secs(20),
    first_token: Duration::from_secs(20),
    idle: Duration::from_secs(20),
    total: Duration::from_secs(30),
};

fn clocks(row: &Row) -> Timeouts {
    match row.gets {
        Gets::Error(_, "deadline_exceeded") => SHORT,
        Gets::Error(_, "connect_timeout") => Timeouts { connect: SHORT.headers, ..LONG },
        Gets::InStream("stream_stalled") => Timeouts { idle: SHORT.idle, ..LONG },
        _ => LONG,
    }
}

const PACE: &str = "answer: { tokens: 8, first_token: 5ms, per_token: 1ms }";

pub struct Bench {
    gateway: app::Running,
    good: mock::Running,
    /// For each row one that is asked alone, one that has a second target, one that is asked directly, and one that
    /// has a second target and is held.
    bad: Vec<[mock::Running; 4]>,
    http: reqwest::Client,
}

impl Bench {
    pub async fn new(rows: &[Row]) -> Self {
        let good = support::mock(PACE).await;
        let mut bad = Vec::new();
        let mut urls = vec![good.base_url()];
        let mut routes = Vec::new();
        let mut timeouts = vec![LONG];
        for (number, row) in rows.iter().enumerate() {
            let of_row = [server(row).await, server(row).await, server(row).await, server(row).await];
            urls.extend([0, 1, 3].map(|which| of_row[which].base_url()));
            routes.push(route(format!("alone-{number}"), vec![1 + 3 * number], clocks(row)));
            routes.push(route(format!("pair-{number}"), vec![2 + 3 * number, 0], clocks(row)));
            let mut held = route(format!("held-{number}"), vec![3 + 3 * number, 0], clocks(row));
            held.streams.mode = StreamMode::Hold;
            routes.push(held);
            timeouts.extend([clocks(row); 3]);
            bad.push(of_row);
        }
        let mut settings = settings(&urls);
        settings.routes = routes;
        for (endpoint, timeouts) in settings.endpoints.iter_mut().zip(timeouts) {
            endpoint.timeouts = timeouts;
        }
        Self { gateway: gateway(settings).await, good, bad, http: http() }
    }

    /// The client of a gateway that has nobody else to ask.
    pub async fn alone(&self, number: usize, row: &Row) -> Result<(), String> {
        let body = row.body(&format!("alone-{number}"));
        let got = self.post(&base(&self.gateway), body.clone(), Some("0")).await;
        self.is(row, number, body, &got).await.map_err(|what| self.wrong(row, "alone", &what, &got))
    }

    /// The client of a gateway with a healthy second target.
    pub async fn paired(&self, number: usize, row: &Row) -> Result<(), String> {
        let body = row.body(&format!("pair-{number}"));
        let got = self.post(&base(&self.gateway), body.clone(), None).await;
        let checked = match row.second {
            Second::NotAsked => self.is(row, number, body, &got).await.and_then(|()| {
                let asked = got.header("x-outrigger-endpoint") == Some("e0");
                if asked { Err("the second target was asked".to_owned()) } else { Ok(()) }
            }),
            Second::Rescues => {
                let whole = self.post(&self.good.base_url(), body, None).await;
                if got.status != 200 || got.broken {
                    Err("not rescued".to_owned())
                } else if got.header("x-outrigger-endpoint") != Some("e0") {
                    Err("answered by another".to_owned())
                } else if got.body != whole.body {
                    Err("not the whole answer of the second".to_owned())
                } else {
                    Ok(())
                }
            }
        };
        checked.map_err(|what| self.wrong(row, "paired", &what, &got))
    }

    /// The same, where the route holds its streams: what would break after it had begun is whole.
    pub async fn held(&self, number: usize, row: &Row) -> Result<(), String> {
        if !matches!(row.gets, Gets::InStream(_)) {
            return Ok(());
        }
        let body = row.body(&format!("held-{number}"));
        let got = self.post(&base(&self.gateway), body.clone(), None).await;
        let whole = self.post(&self.good.base_url(), body, None).await;
        let rescued = got.status == 200 && !got.broken && got.body == whole.body;
        if rescued { Ok(()) } else { Err(self.wrong(row, "held", "not rescued", &got)) }
    }

    async fn post(&self, url: &str, body: String, retries: Option<&str>) -> Answer {
        let mut request = self.http.post(format!("{url}/chat/completions")).header("content-type", "application/json");
        if let Some(retries) = retries {
            request = request.header("x-outrigger-retries", retries);
        }
        Answer::of(request.body(body).send().await).await
    }

    /// Whether `got` is what the row promises.
    async fn is(&self, row: &Row, number: usize, body: String, got: &Answer) -> Result<(), String> {
        let class = |want: &str| match got.error_code() {
            Some(code) if code == want => Ok(()),
            code => Err(format!("the class is {code:?}, not {want}")),
        };
        let status = |want: u16| match got.status {
            status if status == want => Ok(()),
            status => Err(format!("the status is {status}, not {want}")),
        };
        if got.broken {
            return Err("the connection broke".into());
        }
        match row.gets {
            Gets::Unchanged => {
                let direct = self.post(&self.bad[number][2].base_url(), body, None).await;
                status(direct.status)?;
                // What a server declares of its transfer may be wrong; what it sent before it broke off is there.
                let same = direct.body == got.body && direct.header("content-type") == got.header("content-type");
                if same { Ok(()) } else { Err(format!("changed; directly it is\n{}", clip(&direct))) }
            }
            Gets::Mended => {
                status(200)?;
                let whole = self.post(&self.good.base_url(), body, None).await;
                if !got.looks_complete() {
                    Err("it does not look complete".into())
                } else if said(&got.body) != said(&whole.body) {
                    Err(format!("it says {:?}, not {:?}", said(&got.body), said(&whole.body)))
                } else {
                    Ok(())
                }
            }
            Gets::Refused(want, name) => {
                let direct = self.post(&self.bad[number][2].base_url(), body, None).await;
                status(want)?;
                let trail = got.header("x-outrigger-trail").unwrap_or_default();
                if got.body != direct.body {
                    Err("not the endpoint's own words".into())
                } else if !trail.contains(&format!("class={name};")) {
                    Err(format!("the trail is {trail}"))
                } else {
                    Ok(())
                }
            }
            Gets::Error(want, name) => status(want).and_then(|()| class(name)),
            Gets::InStream(name) => {
                status(200)?;
                class(name)?;
                if got.looks_complete() || got.text().contains("[DONE]") {
                    return Err("it looks complete".into());
                }
                let last = got.text().lines().rfind(|line| line.starts_with("data:")).map(str::to_owned);
                if last.is_some_and(|last| last.contains("\"error\"")) {
                    Ok(())
                } else {
                    Err("error is not last".into())
                }
            }
        }
    }

    fn wrong(&self, row: &Row, how: &str, what: &str, got: &Answer) -> String {
        let kind = if row.kind == Kind::Stream { "stream" } else { "whole" };
        format!("`{}` {kind} {how}: {what}; {} {}", row.fault, got.status, clip(got))
    }
}

fn clip(answer: &Answer) -> String {
    let text = answer.text();
    let (head, tail): (String, String) = (text.chars().take(200).collect(), {
        let from = text.char_indices().rev().nth(250).map_or(0, |(at, _)| at);
        text[from..].to_owned()
    });
    format!("{head:?} .. {tail:?} {:?}", answer.header("x-outrigger-trail"))
}

async fn server(row: &Row) -> mock::Running {
    if row.covers.starts_with("network: ") {
        let server = support::mock(PACE).await;
        server.network(row.network, None).await;
        return server;
    }
    support::mock(&format!("{PACE}\nrules: [{{ do: {{ {} }} }}]", row.fault)).await
}

fn route(name: String, endpoints: Vec<usize>, timeouts: Timeouts) -> RouteSettings {
    let backoff = Backoff { base: Duration::from_millis(10), max: Duration::from_millis(50) };
    RouteSettings {
        model: name.clone(),
        name,
        targets: endpoints.into_iter().map(|endpoint| Target::of(vec![endpoint])).collect(),
        timeouts,
        retry: RetrySettings { backoff, ..RetrySettings::default() },
        max_sends: 4,
        queue_wait: QUEUE_WAIT,
        hedge: Default::default(),
        streams: StreamSettings::default(),
    }
}

impl Row {
    fn body(&self, model: &str) -> String {
        let stream = self.kind == Kind::Stream;
        let mut body = serde_json::json!({
            "model": model, "stream": stream, "messages": [{"role": "user", "content": "hello"}],
        });
        let schema = serde_json::json!({
            "type": "object", "required": ["city", "days"],
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        });
        match self.ask {
            Ask::Plain => {}
            Ask::Two => body["n"] = 2.into(),
            Ask::Json => {
                let format = serde_json::json!({"name": "trip", "schema": schema});
                body["response_format"] = serde_json::json!({"type": "json_schema", "json_schema": format});
            }
            Ask::Tools => {
                let tool = serde_json::json!({"name": "plan_trip", "parameters": schema});
                body["tools"] = serde_json::json!([{"type": "function", "function": tool}]);
                body["tool_choice"] = "required".into();
            }
        }
        body.to_string()
    }
}
