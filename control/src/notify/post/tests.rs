//! Against a mail server of one connection at a time.

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::config::MailServer;

fn message(text: &str) -> Message {
    Message {
        subject: "a subject".into(),
        text: text.into(),
    }
}

fn mail(port: u16, to: &[&str]) -> Mail {
    Mail {
        to: to.iter().map(|&address| address.to_owned()).collect(),
        from: Some("lb@example.com".into()),
        server: MailServer {
            host: "127.0.0.1".into(),
            port,
        },
        helo_name: Some("lb1".into()),
        connect_timeout: Duration::from_secs(5),
        alert: None,
        alert_vrrp: None,
        alert_checker: None,
        no_email_faults: false,
    }
}

/// Serves a client; returns what it said. Refuses recipients named `nobody`.
async fn serve(listener: &TcpListener) -> Vec<String> {
    let (mut stream, _) = listener.accept().await.unwrap();
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    let mut said = Vec::new();
    writer
        .write_all(b"220-test\r\n220 ready\r\n")
        .await
        .unwrap();
    let mut is_data = false;
    while let Some(line) = lines.next_line().await.unwrap() {
        let answer = match line.as_str() {
            "." => "250 taken\r\n",
            _ if is_data => "",
            "DATA" => "354 go on\r\n",
            "QUIT" => "221 bye\r\n",
            "RCPT TO:<nobody>" => "550 who?\r\n",
            "RCPT TO:<elsewhere>" => "251 User not local; will forward\r\n",
            _ => "250 fine\r\n",
        };
        is_data = (is_data || line == "DATA") && line != ".";
        writer.write_all(answer.as_bytes()).await.unwrap();
        said.push(line);
    }
    said
}

#[tokio::test]
async fn mails_are_sent_one_after_the_other() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut post = Post::default();
    post.send(message("to nobody: there is no address"));
    post.take_up(Some(&mail(port, &["nobody", "elsewhere"])), Some("LVS"));
    post.send(message("first"));
    post.send(message("second"));
    let served = async { (serve(&listener).await, serve(&listener).await) };
    let ((first, second), ()) = tokio::join!(served, post.finish());
    let commands = [
        "HELO lb1",
        "MAIL FROM:<lb@example.com>",
        "RCPT TO:<nobody>",
        "RCPT TO:<elsewhere>",
        "DATA",
    ];
    assert_eq!(first[..5], commands);
    assert!(first.contains(&"Subject: [LVS] a subject".to_owned()));
    assert_eq!(first[first.len() - 3..], ["first", ".", "QUIT"]);
    assert_eq!(second[second.len() - 3..], ["second", ".", "QUIT"]);
}

#[tokio::test]
async fn what_keeps_a_mail_from_being_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let posted = |mail: Mail| Posted {
        message: message("x"),
        router_id: "LVS".into(),
        mail: Arc::new(mail),
        at: SystemTime::now(),
    };
    let refused = posted(mail(port, &["nobody"]));
    let (said, sent) = tokio::join!(serve(&listener), session(&refused));
    let why = sent.unwrap_err().to_string();
    assert_eq!(why, "RCPT TO: answered \"550 who?\", expected 25x");
    assert!(!said.contains(&"DATA".to_owned()), "{said:?}");

    let mut hurried = mail(port, &["root"]);
    hurried.connect_timeout = Duration::from_millis(50);
    // The kernel accepts, nobody greets.
    let why = session(&posted(hurried)).await.unwrap_err().to_string();
    assert_eq!(why, "greeting: timed out");

    drop(listener);
    let why = session(&posted(mail(port, &["root"]))).await.unwrap_err();
    assert!(matches!(why, NotSent::Connect(_)), "{why}");
}

#[tokio::test]
async fn a_server_that_hangs_delays_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut post = Post::default();
    post.take_up(Some(&mail(port, &["root"])), None);
    for _ in 0..MOST_WAITING {
        post.send(message("waits"));
    }
    assert!(!post.is_full);
    post.send(message("dropped"));
    assert!(post.is_full);
}
