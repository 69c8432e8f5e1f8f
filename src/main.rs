//! temporary
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    use outrigger::*;
    let url = std::env::args().nth(1).expect("url");
    app::start_logging(&config::LogSettings { format: config::LogFormat::Auto, level: "info".into() });
    let settings = config::Settings {
        server: config::ServerSettings {
            listen: "127.0.0.1:8700".parse()?,
            max_body: 32 << 20,
            max_connections: 10000,
            keys: vec![],
        },
        admin: config::AdminSettings { listen: "127.0.0.1:8701".parse()? },
        drain: config::DrainSettings { delay: std::time::Duration::ZERO, timeout: std::time::Duration::from_secs(120) },
        log: config::LogSettings { format: config::LogFormat::Auto, level: "info".into() },
        state_dir: None,
        endpoints: vec![transport::EndpointSettings {
            name: "upstream".into(),
            url,
            credential: transport::Credential::None,
            forward_client_key: true,
            dialect: Default::default(),
            model: None,
            timeouts: Default::default(),
        }],
        routes: vec![policy::RouteSettings {
            name: "default".into(),
            model: "*".into(),
            targets: vec![policy::Target { endpoints: vec![0] }],
            timeouts: Default::default(),
            retry: Default::default(),
            max_sends: 4,
        }],
    };
    app::serve(settings, |_| {}).await
}
