//! Lines as keepalived.conf(5) has them, and scripts that read them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::config::{self, Notifications};
use crate::controller::Controller;
use crate::event::{Action, CheckId, Event};
use crate::scripts::{Policy, Runner, Script};

fn instance() -> Notice {
    Notice::Instance {
        name: "VI_1".into(),
        state: State::Master,
        priority: 100,
    }
}

fn real_server() -> Notice {
    let name = |text: &str| server_name(text.parse().unwrap());
    Notice::RealServer {
        name: name("TCP 1.2.3.4:80"),
        virtual_server: name("TCP [2001:db8::1]:80"),
        up: false,
    }
}

#[test]
fn lines_are_keepalived_s() {
    assert_eq!(instance().to_string(), r#"INSTANCE "VI_1" MASTER 100"#);
    let group = Notice::Group {
        name: "VG 1".into(),
        state: State::Init,
    };
    assert_eq!(group.to_string(), r#"GROUP "VG 1" STOP 0"#);
    assert_eq!(
        real_server().to_string(),
        "RS [1.2.3.4]:tcp:80 [2001:db8::1]:tcp:80 DOWN"
    );
    let virtual_server = Notice::VirtualServer {
        name: server_name("UDP 192.168.201.15:53".parse().unwrap()),
        up: true,
    };
    assert_eq!(virtual_server.to_string(), "VS [192.168.201.15]:udp:53 UP");
}

fn fifo(path: &Path, script: Option<&str>) -> Option<config::Fifo> {
    let script = script.map(|line| Script {
        words: ["/bin/sh", "-c", line, "sh"].map(str::to_owned).to_vec(),
        user: None,
    });
    Some(config::Fifo {
        path: path.to_owned(),
        owner: None,
        script,
    })
}

#[tokio::test]
async fn each_fifo_has_what_it_is_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let reader = |name: &str| format!("cat <$1 >{}", path(name).display());
    let wanted = Notifications {
        fifo: fifo(&path("all"), Some(&reader("all.out"))),
        vrrp_fifo: fifo(&path("vrrp"), Some(&reader("vrrp.out"))),
        lvs_fifo: fifo(&path("lvs"), Some(&reader("lvs.out"))),
        mail: None,
    };
    let mut fifos = Fifos::new(Runner::new(Policy::default()));
    fifos.take_up(&wanted);
    fifos.tell(&instance());
    // The same configuration again: nothing is closed, no line lost.
    fifos.take_up(&wanted);
    fifos.tell(&real_server());
    // A FIFO ends for those only who have opened it.
    let end = Instant::now() + Duration::from_secs(10);
    while !path("lvs.out").exists() || !path("vrrp.out").exists() || !path("all.out").exists() {
        assert!(Instant::now() < end, "no reader was started");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fifos.finish().await;
    let [vrrp, servers] = [instance(), real_server()].map(|notice| format!("{notice}\n"));
    let read = |name: &str| fs::read_to_string(path(name)).unwrap();
    assert_eq!(read("all.out"), format!("{vrrp}{servers}"));
    assert_eq!(read("vrrp.out"), vrrp);
    assert_eq!(read("lvs.out"), servers);
    assert!(!path("all").exists());
}

#[tokio::test]
async fn a_fifo_that_is_not_wanted_any_more_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
    let mut fifos = Fifos::new(Runner::new(Policy::default()));
    let mut wanted = Notifications {
        fifo: fifo(&first, Some("sleep 60 #")),
        ..Notifications::default()
    };
    fifos.take_up(&wanted);
    assert!(first.exists());
    wanted.fifo = fifo(&second, None);
    fifos.take_up(&wanted);
    assert!(!first.exists() && second.exists());
    fifos.take_up(&Notifications::default());
    assert!(!second.exists());
}

const SERVERS: &str = r#"
[[virtual_server]]
address = "10.0.0.100:80"
lb_kind = "DR"
omega = true
real_server = [{ address = "10.0.0.1:80", TCP_CHECK = {} }]
"#;

/// What is done at the start, when the check fails, and at the end.
fn actions(global: &str) -> Vec<Action> {
    let file = format!("[global_defs]\n{global}\n{SERVERS}");
    let checked = config::parse(&file, Path::new("file")).unwrap();
    let mut controller = Controller::new(checked.config, Vec::new());
    let now = Instant::now();
    let mut actions = controller.start(now);
    for healthy in [true, false, true] {
        let event = Event::Health {
            id: CheckId {
                virtual_server: "TCP 10.0.0.100:80".to_owned(),
                real_server: "10.0.0.1:80".parse().unwrap(),
                check: 0,
            },
            healthy,
            reason: "test".to_owned(),
            weight: None,
        };
        actions.extend(controller.handle(event, now));
    }
    actions.extend(controller.stop());
    actions
}

fn told(global: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for action in actions(global) {
        if let Action::Tell(notice) = action {
            lines.push(notice.to_string());
        }
    }
    lines
}

fn subjects(global: &str) -> Vec<String> {
    let mut subjects = Vec::new();
    for action in actions(global) {
        if let Action::Mail(message) = action {
            assert!(!message.text.is_empty());
            subjects.push(message.subject);
        }
    }
    subjects
}

#[test]
fn mails_are_sent_where_they_are_wanted() {
    const RS: &str = "Realserver [10.0.0.1]:tcp:80 of virtual server [10.0.0.100]:tcp:80";
    const VS: &str = "Virtualserver [10.0.0.100]:tcp:80";
    let server = [
        format!("{RS} - DOWN"),
        format!("{RS} - UP"),
        format!("{RS} - DOWN"),
    ];
    let to = "notification_email = ['root']\n";
    // keepalived's default: of real servers only.
    assert_eq!(subjects(to), server);
    assert!(subjects(&format!("{to}smtp_alert = false")).is_empty());
    assert!(
        subjects(&format!(
            "{to}smtp_alert_checker = false\nsmtp_alert = true"
        ))
        .is_empty()
    );
    let all = [
        format!("{VS} - UP"),
        format!("{RS} - DOWN"),
        format!("{VS} - DOWN"),
        format!("{RS} - UP"),
        format!("{VS} - UP"),
        format!("{RS} - DOWN"),
        format!("{VS} - DOWN"),
    ];
    assert_eq!(subjects(&format!("{to}smtp_alert = true")), all);
    assert!(subjects("").is_empty());
}

#[test]
fn the_controller_tells_of_servers() {
    const VS: &str = "VS [10.0.0.100]:tcp:80";
    const RS: &str = "RS [10.0.0.1]:tcp:80 [10.0.0.100]:tcp:80";
    let expected = [
        format!("{VS} UP"),
        format!("{RS} DOWN"),
        format!("{VS} DOWN"),
        format!("{RS} UP"),
        format!("{VS} UP"),
        format!("{RS} DOWN"),
        format!("{VS} DOWN"),
    ];
    assert_eq!(told("notify_fifo = '/run/fifo'"), expected);
    assert_eq!(told("lvs_notify_fifo = '/run/fifo'"), expected);
    // Nobody wants to know.
    assert!(told("").is_empty());
    assert!(told("vrrp_notify_fifo = '/run/fifo'").is_empty());
}
