//! Real processes. As root, also other users' and root's own files.

use std::path::Path;
use std::time::Instant;

use super::security::safe_as_root;
use super::*;

const LONG: Duration = Duration::from_secs(10);

fn script(words: &[&str]) -> Script {
    Script {
        words: words.iter().map(|&word| word.to_owned()).collect(),
        user: None,
    }
}

fn shell(line: &str) -> Script {
    script(&["/bin/sh", "-c", line])
}

fn runner() -> Runner {
    Runner::new(Policy::default())
}

fn is_root() -> bool {
    let root = unistd::geteuid().is_root();
    if !root {
        skip::skipped("needs root");
    }
    root
}

#[tokio::test]
async fn the_exit_status_and_the_arguments() {
    let counts = shell("exit $#");
    assert_eq!(runner().run(&counts, &[], LONG).await, Outcome::Exited(0));
    assert_eq!(
        runner().run(&counts, &["zero", "one", "two"], LONG).await,
        Outcome::Exited(2)
    );
    assert_eq!(
        runner().run(&shell("kill -9 $$"), &[], LONG).await,
        Outcome::Killed(9)
    );
    // Found by PATH.
    assert_eq!(
        runner().run(&script(&["false"]), &[], LONG).await,
        Outcome::Exited(1)
    );
}

#[tokio::test]
async fn a_redirection_asks_the_shell() {
    let opens = |path: &str| script(&["<", path]);
    assert_eq!(
        runner().run(&opens("/dev/null"), &[], LONG).await,
        Outcome::Exited(0)
    );
    assert_ne!(
        runner().run(&opens("/no/such"), &[], LONG).await,
        Outcome::Exited(0)
    );
}

#[tokio::test]
async fn what_cannot_be_run_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("plain");
    fs::write(&plain, "").unwrap();
    let cases = [
        (
            "no-such-program-here",
            "no program no-such-program-here in PATH",
        ),
        ("/no/such/file", "/no/such/file: no such file"),
        ("/etc", "/etc is not an executable file"),
        (
            plain.to_str().unwrap(),
            "is not an executable file: chmod +x",
        ),
    ];
    for (program, expected) in cases {
        let Outcome::NotRun(why) = runner().run(&script(&[program]), &[], LONG).await else {
            panic!("{program} was run");
        };
        assert!(why.contains(expected), "{why}");
    }
    let mut stranger = shell("true");
    stranger.user = Some(ScriptUser {
        user: "no-such-user".into(),
        group: None,
    });
    assert_eq!(
        runner().check(&stranger),
        Err("no user no-such-user".into())
    );
}

fn is_alive(pid: &str) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{}/stat", pid.trim())) else {
        return false;
    };
    // Killed but not yet collected by whoever adopted it counts as dead.
    !status.contains(") Z ")
}

async fn dies(pid: &str) {
    let end = Instant::now() + Duration::from_secs(5);
    while is_alive(pid) {
        assert!(Instant::now() < end, "process {pid} is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn at_the_timeout_the_whole_group_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    // A child that ignores SIGTERM, and a parent that waits for it.
    let line = format!(
        "(trap '' TERM; sleep 60 & echo $! >{}; wait; sleep 60) & wait",
        file.display()
    );
    let begin = Instant::now();
    let outcome = runner()
        .run(&shell(&line), &[], Duration::from_millis(300))
        .await;
    assert_eq!(outcome, Outcome::TimedOut);
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert!(begin.elapsed() < Duration::from_secs(3), "{begin:?}");
    dies(&fs::read_to_string(&file).unwrap()).await;
}

#[tokio::test]
async fn a_cancelled_run_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let line = format!("echo $$ >{}; sleep 60; true", file.display());
    let run = tokio::spawn(async move { runner().run(&shell(&line), &[], LONG).await });
    while fs::read_to_string(&file).is_ok_and(|t| t.is_empty()) || !file.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let pid = fs::read_to_string(&file).unwrap();
    assert!(is_alive(&pid));
    run.abort();
    dies(&pid).await;
}

#[tokio::test]
async fn runs_as_another_user() {
    if !is_root() {
        return;
    }
    let mut as_nobody =
        shell("test $(id -un) = nobody && test $(id -gn) = daemon && test $(id -G | wc -w) = 1");
    as_nobody.user = Some(ScriptUser {
        user: "nobody".into(),
        group: Some("daemon".into()),
    });
    assert_eq!(
        runner().run(&as_nobody, &[], LONG).await,
        Outcome::Exited(0)
    );
    // The policy's user is the default.
    let runner = Runner::new(Policy {
        user: as_nobody.user.take(),
        security: false,
    });
    assert_eq!(runner.run(&as_nobody, &[], LONG).await, Outcome::Exited(0));
}

#[tokio::test]
async fn script_security_refuses_what_others_can_change() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("script");
    fs::write(&file, "#!/bin/sh\nexit 7\n").unwrap();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(directory.path(), 0o755);
    mode(&file, 0o755);
    let secure = Runner::new(Policy {
        user: None,
        security: true,
    });
    let wanted = script(&[file.to_str().unwrap()]);
    assert_eq!(secure.run(&wanted, &[], LONG).await, Outcome::Exited(7));

    mode(&file, 0o757);
    let Outcome::NotRun(why) = secure.run(&wanted, &[], LONG).await else {
        panic!("a file that anybody can write was run as root");
    };
    assert!(
        why.contains("can be written by others than root (mode 0757)"),
        "{why}"
    );
    // Without the key it runs.
    assert_eq!(runner().run(&wanted, &[], LONG).await, Outcome::Exited(7));
    // As another user it may be anything.
    let mut harmless = wanted.clone();
    harmless.user = Some(ScriptUser {
        user: "nobody".into(),
        group: None,
    });
    assert_eq!(secure.run(&harmless, &[], LONG).await, Outcome::Exited(7));
    mode(&file, 0o755);

    // A directory on the way.
    mode(directory.path(), 0o777);
    assert!(matches!(
        safe_as_root(&file),
        Err(security::Unsafe::Writable { path, .. }) if path == directory.path()
    ));
    mode(directory.path(), 0o755);

    // A link to it, somewhere else: the link's own way counts, and the target's.
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    mode(elsewhere.path(), 0o755);
    safe_as_root(&link).unwrap();
    std::os::unix::fs::chown(&file, Some(1), None).unwrap();
    assert!(matches!(
        safe_as_root(&link),
        Err(security::Unsafe::Owner { path, uid: 1 }) if path == file
    ));
    // A link to itself ends.
    let ring = elsewhere.path().join("ring");
    std::os::unix::fs::symlink(&ring, &ring).unwrap();
    assert!(matches!(
        safe_as_root(&ring),
        Err(security::Unsafe::Links { .. })
    ));
}
