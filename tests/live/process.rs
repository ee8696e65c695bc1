//! The daemon as a process: what it tells a service manager, signals, and its configuration.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::scene::{Scene, must, texts};
use crate::{Use, turn};

#[test]
fn the_service_manager_is_told_of_readiness_life_reload_and_end() {
    let _turn = turn(Use::PartOfHost);
    let folder = tempfile::tempdir().expect("a folder for the socket");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("the service manager's socket");
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a bounded wait");
    let next = |wanted: &str| {
        let mut seen = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            let length = socket
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("no {wanted} ({error}) after {seen:?}"));
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|line| line == wanted) {
                return text;
            }
            seen.push(text);
        }
    };

    let scene =
        Scene::start_with_environment("", &[("NOTIFY_SOCKET", &path.display().to_string())]);
    next("READY=1");
    // Ready means that people are answered.
    scene.cli(&["list"]);
    let alive = next("WATCHDOG=1");
    assert!(alive.contains("STATUS="), "{alive}");
    must(scene.daemon().borrow().reload());
    let reloading = next("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    next("READY=1");
    let status = must(scene.daemon().borrow_mut().terminate());
    next("STOPPING=1");
    assert!(status.success(), "{status}");

    scene.start_daemon();
    let said = texts(&scene.audit(None), "daemon");
    assert!(
        said.iter().any(|text| text == "the daemon stops"),
        "{said:#?}"
    );
}

#[test]
fn a_reload_takes_over_what_is_valid_and_keeps_what_it_had_otherwise() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("");
    let budget = || {
        scene.host_check("budget")["sentence"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    scene.until("the host's budget is known", || budget().contains("vCPUs"));
    let before = budget();

    scene.configure("[budget]\nvcpus_per_core = 9.0\n");
    scene.check_config().expect("it is valid");
    must(scene.daemon().borrow().reload());
    scene.until("the budget is the configured one", || budget() != before);
    let after = budget();

    scene.configure("[budget]\nvcpus_per_core = 900.0\n");
    let refusal = scene.check_config().expect_err("it is not valid");
    assert!(
        refusal.contains("budget.vcpus_per_core = 900") && refusal.contains("0.1 to 64"),
        "{refusal}"
    );
    must(scene.daemon().borrow().reload());
    scene.until("the refusal is recorded", || {
        texts(&scene.audit(None), "refusal")
            .iter()
            .any(|text| text.contains("the configuration stays as it was"))
    });
    assert_eq!(budget(), after);
    let check = scene.host_check("daemon");
    assert!(
        check["state"] == "fail"
            && check["sentence"]
                .to_string()
                .contains("budget.vcpus_per_core"),
        "{check}"
    );

    scene.configure("");
    must(scene.daemon().borrow().reload());
    scene.until("all is well again", || {
        budget() == before && scene.host_check("daemon").is_null()
    });
}
