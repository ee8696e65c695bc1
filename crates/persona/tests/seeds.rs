//! The documents of the persona language as their authors first wrote them, exactly as printed: each loads, means what
//! its author meant, and has twins in canonical style and in the other formats with the same digest.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests read their fixtures; the crate itself reads no file"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use persona::rule::Rule;
use persona::{
    Bytes, Class, EnvironmentValue, FeedFormat, Format, Frequency, LearningDomain, Level, Loaded,
    LoggingLevel, Persona, Protocol, Scaling, SourceText, load,
};

/// The documents by the name before the first point: the one as printed, and its twins.
fn documents() -> BTreeMap<String, Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds");
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        let stem = file.split('.').next().unwrap().to_owned();
        found.entry(stem).or_default().push(path);
    }
    found
}

fn load_file(path: &Path) -> Loaded {
    let text = fs::read(path).unwrap();
    let file = path.file_name().unwrap().to_str().unwrap();
    let format = match path.extension().unwrap().to_str().unwrap() {
        "json" => Format::Json,
        "toml" => Format::Toml,
        _ => Format::Yaml,
    };
    // As the command line gives it to a document without a name.
    let source = SourceText {
        name: file,
        text: &text,
        format,
        persona_name: file.split('.').next(),
    };
    load(&source).unwrap_or_else(|problems| panic!("{problems}"))
}

fn seed(file: &str) -> Persona {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds");
    load_file(&folder.join(file)).persona
}

fn texts(rules: &[Rule]) -> Vec<&str> {
    rules.iter().map(|rule| rule.text.as_str()).collect()
}

fn packages(persona: &Persona) -> Vec<String> {
    let show = |package: &persona::Software| {
        let purpose = package.purpose.as_deref().unwrap_or("-");
        format!("{} {} {purpose}", package.name, package.version)
    };
    persona.software.iter().map(show).collect()
}

#[test]
fn twins_in_other_styles_and_formats_have_the_same_digest() {
    let documents = documents();
    assert_eq!(documents.len(), 6, "{:?}", documents.keys());
    for (stem, paths) in documents {
        assert!(paths.len() >= 2, "{stem} has no twin");
        let loaded: Vec<_> = paths.iter().map(|path| load_file(path).persona).collect();
        for (path, persona) in paths.iter().zip(&loaded) {
            assert_eq!(
                persona.digest,
                loaded[0].digest,
                "{} and {}:\n{}\n{}",
                path.display(),
                paths[0].display(),
                serde_json::to_string_pretty(persona).unwrap(),
                serde_json::to_string_pretty(&loaded[0]).unwrap(),
            );
        }
    }
}

#[test]
fn the_developer_has_settings_extensions_and_habits() {
    let persona = seed("developer.yaml");
    assert_eq!(persona.name.as_str(), "developer");
    let os = &persona.os_settings;
    assert_eq!(os.theme.as_deref(), Some("dark"));
    assert_eq!(os.editor.as_deref(), Some("VSCode"));
    assert_eq!(os.terminal_shell.as_deref(), Some("zsh"));
    let applications = &persona.application_settings;
    assert_eq!(applications.ide_extensions, ["python", "docker", "gitlens"]);
    assert_eq!(
        applications.browser_extensions,
        ["adblock", "https everywhere"]
    );
    let habits = &persona.behavioral_settings;
    assert_eq!(habits.auto_update_frequency, Some(Frequency::Daily));
    assert_eq!(habits.logging_level, Some(LoggingLevel::Debug));
    assert_eq!(habits.security_scan_frequency, Some(Frequency::Weekly));
}

#[test]
fn high_traffic_scales_caches_and_blocks() {
    let persona = seed("HighTraffic.yaml");
    assert_eq!(persona.name.as_str(), "hightraffic");
    assert_eq!(persona.base.cpu.unwrap().initial, Some(8));
    let memory = persona.base.memory.unwrap();
    assert_eq!(memory.initial, Some(Bytes(32_000_000_000)));
    assert_eq!(persona.base.network_bandwidth, Some(1e10));
    assert_eq!(
        packages(&persona),
        [
            "nginx latest -",
            "redis any caching",
            "prometheus any metrics collection"
        ]
    );
    assert_eq!(
        texts(&persona.rules),
        [
            "IF cpu.utilization > 80% FOR 5m THEN set vcpus to 16 COOLDOWN 1m PRIORITY 0",
            "IF network.latency > 100ms THEN enable feature cdn-caching COOLDOWN 1m PRIORITY 0",
            "IF EVENT(feed.changed(threatintel.example.com)) THEN block addresses from threatintel.example.com COOLDOWN 1m PRIORITY 0",
        ]
    );
    let names: Vec<_> = persona
        .rules
        .iter()
        .map(|rule| rule.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["trigger-1", "trigger-2", "feed-threatintel.example.com"]
    );
    let [feed] = persona.sources.as_slice() else {
        panic!("{:?}", persona.sources);
    };
    assert_eq!(feed.name, "threatintel.example.com");
    assert_eq!(feed.url, "https://threatintel.example.com/latest_ips");
    assert_eq!(feed.frequency, Duration::from_secs(300));
    assert_eq!(feed.stale_after, Duration::from_secs(3600));
    assert_eq!(feed.format, None);
}

#[test]
fn the_adaptive_one_compares_its_weights() {
    let persona = seed("adaptive.yaml");
    assert_eq!(
        texts(&persona.rules),
        [
            "IF cpu.utilization > 90% AND priority_metrics[performance] > priority_metrics[security] THEN add 1 vcpus COOLDOWN 1m PRIORITY 0"
        ]
    );
    assert_eq!(persona.priorities.weight("performance"), Some(0.75));
    assert_eq!(persona.priorities.weight("security"), Some(0.25));
    assert_eq!(
        persona.learning.as_deref(),
        Some(
            &[
                LearningDomain::NetworkTraffic,
                LearningDomain::SystemLogs,
                LearningDomain::ApplicationCalls
            ][..]
        )
    );
    assert_eq!(persona.trust.level(Class::NetworkAccess), Level::Medium);
    assert_eq!(
        persona.trust.level(Class::FileSystemModification),
        Level::Low
    );
    // A tenth is forgotten each week: half after 6.58 weeks.
    let weeks = persona.decay.unwrap().half_life.as_secs_f64() / 604_800.0;
    assert!((weeks - 6.5788).abs() < 1e-4, "{weeks}");
}

#[test]
fn the_test_runner_is_json_with_its_flat_keys() {
    let persona = seed("test-runner.json");
    assert_eq!(persona.name.as_str(), "test-runner");
    assert!(!persona.default_persona);
    let value = |name: &str| persona.environment.get(name).map(EnvironmentValue::expose);
    assert_eq!(value("WORKERS"), Some("4"));
    assert_eq!(value("STRICT"), Some("true"));
    let pre = persona.pre_activation.as_ref().unwrap();
    assert_eq!(pre.interpreter, "/bin/sh");
    assert!(pre.text.starts_with("#!/bin/sh\nset -e\ntar "));
    let post = persona.post_activation.as_ref().unwrap();
    assert_eq!(post.text, "test -f /srv/test-data/index");
    assert_eq!(
        persona.command_overrides.get("deploy").map(String::as_str),
        Some("/opt/tests/record-deploy")
    );
    assert_eq!(persona.restricted_commands, ["curl", "reboot", "shutdown"]);
}

#[test]
fn the_negotiated_one_says_what_it_needs_and_may_cost() {
    let persona = seed("negotiated.yaml");
    assert_eq!(persona.name.as_str(), "negotiated");
    assert_eq!(persona.functional_role.as_deref(), Some("web server"));
    let [night, day] = persona.performance_profile.as_slice() else {
        panic!("{:?}", persona.performance_profile);
    };
    assert_eq!((night.at, day.at), (0, 8 * 60));
    assert_eq!(night.cpu.unwrap().average, Some(1.0));
    assert_eq!(day.cpu.unwrap().peak, Some(8.0));
    assert_eq!(day.memory.unwrap().sustained, Some(Bytes(14_000_000_000)));
    assert_eq!(day.iops.unwrap().average, Some(800.0));
    assert_eq!(day.network.unwrap().peak, Some(1e9));
    let security = persona.security_profile.as_ref().unwrap();
    assert_eq!(security.access_levels, ["operator", "auditor"]);
    assert_eq!(security.compliance, ["HIPAA", "PCI DSS"]);
    assert_eq!(
        security.data_sensitivity.as_deref(),
        Some("cardholder data")
    );
    let egress = security.egress.as_ref().unwrap();
    assert_eq!(egress[1].protocol, Protocol::Tcp);
    assert_eq!(egress[1].ports, Some((5432, 5433)));
    let lifecycle = persona.lifecycle.as_ref().unwrap();
    assert_eq!(lifecycle.uptime, Some(99.9));
    assert_eq!(lifecycle.scaling, Some(Scaling::Vertical));
    assert_eq!(lifecycle.duration, Some(Duration::from_secs(90 * 86_400)));
    let cost = persona.cost.as_ref().unwrap();
    assert_eq!(
        (cost.max_hourly, cost.max_monthly),
        (Some(0.5), Some(300.0))
    );
    assert_eq!(cost.currency.as_deref(), Some("EUR"));
}

#[test]
fn the_whole_document_means_all_of_its_parts() {
    let persona = seed("whole.yaml");
    assert_eq!(persona.extends[0].to_string(), "web-base");
    assert_eq!(persona.allowed_switches[0].as_str(), "maintenance");
    assert_eq!(packages(&persona), ["nginx latest front end"]);
    assert_eq!(
        texts(&persona.rules),
        [
            "IF cpu.utilization > 80% FOR 5m THEN set vcpus to 16 UNTIL cpu.utilization < 30% FOR 10m COOLDOWN 2m PRIORITY 10",
            "IF memory.utilization > 90% THEN add 25% memory UNTIL memory.utilization < 50% FOR 15m COOLDOWN 5m PRIORITY 5",
            "IF network.latency > 100ms THEN enable feature cdn-caching COOLDOWN 1m PRIORITY 0",
            "IF external.threatintel.count > 0 THEN block addresses from threatintel COOLDOWN 1m PRIORITY 0",
        ]
    );
    let response: Vec<_> = persona.responses["lock-down"]
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(response, ["isolate", "notify \"locked down\""]);
    let script = &persona.response_scripts["purge-cache"];
    assert_eq!(script.user, "www-data");
    assert_eq!(persona.sources[0].format, Some(FeedFormat::Lines));
    assert_eq!(persona.base.disk.unwrap().iops, Some(20_000.0));
    assert_eq!(persona.priorities.weight("performance"), Some(0.6));
    assert!(matches!(
        persona.environment["API_KEY"],
        EnvironmentValue::Secret { .. }
    ));
}
