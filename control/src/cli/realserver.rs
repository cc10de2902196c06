//! `appliance realserver`.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, anyhow};

use super::{ConfigFile, EXIT_STATUS, Failure, print};
use crate::in_words::count;
use crate::netlink::Requests;
use crate::realserver::{self, Host, Needs, Places, Record};

/// Set this host up as a real server of a configuration file
///
/// To be run on a real server, with the director's file. By its own addresses
/// the host knows which real server it is, and what it needs:
///
///   DR    the virtual address on lo, and silence about it (ARP)
///   TUN   that, and something that takes packets out of the tunnel: the
///         kernel's tunnel device if there is one, else a BPF program
///   NAT   a default route to the director, which is checked and not made
///
/// docs/realserver.md has more.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUS)]
pub struct RealServer {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make what is missing, and say what it was; again does nothing
    ///
    /// Exit status 1 also if something is wrong then that this command does
    /// not make, such as the default route of NAT.
    Up(OnHost),
    /// Take back what `up` made, and nothing else
    Down(Down),
    /// Say what is right and what is wrong, whoever set this host up
    ///
    /// Exit status 1 if anything is wrong.
    Status(OnHost),
    /// Print a portable shell script that takes `up` and `down`
    Script(Which),
}

/// Which real server.
#[derive(Debug, clap::Args)]
struct Which {
    #[command(flatten)]
    file: ConfigFile,
    /// The real server's address, if this host does not have it; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    address: Vec<IpAddr>,
}

#[derive(Debug, clap::Args)]
struct OnHost {
    #[command(flatten)]
    which: Which,
    /// An address of the director, to which NAT's replies may go; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<IpAddr>,
    #[command(flatten)]
    record: Recorded,
    /// The BPF file system that keeps the program of TUN attached
    #[arg(long, value_name = "DIRECTORY", default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Down {
    /// Not read: what `up` made is recorded
    #[arg(value_name = "CONFIG")]
    _file: Option<PathBuf>,
    #[command(flatten)]
    record: Recorded,
}

#[derive(Debug, clap::Args)]
struct Recorded {
    /// Where `up` records what it made
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/run/appliance-realserver.json"
    )]
    state: PathBuf,
}

impl RealServer {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Exit status 2 for a wrong file, or one without this host; 1 when
    /// something failed or is wrong.
    pub fn run(self) -> Result<(), Failure> {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().context("cannot start tokio")?;
        runtime.block_on(async {
            let requests = Requests::open().context("cannot open a netlink socket")?;
            match self.action {
                Action::Up(host) => host.up(&requests).await,
                Action::Down(down) => {
                    let mut done = Vec::new();
                    let outcome = realserver::down(&requests, &down.record.state, &mut done).await;
                    told(
                        outcome,
                        &done,
                        "nothing to take back",
                        "the record still has the rest",
                    )
                }
                Action::Status(host) => host.status(&requests).await,
                Action::Script(which) => {
                    let host = Host::look(&requests).await?;
                    let needs = which.needs(&host)?;
                    let file = which.file.path.display().to_string();
                    print(&realserver::script(&needs, &file))
                }
            }
        })
    }
}

impl Which {
    fn needs(&self, host: &Host) -> Result<Needs, Failure> {
        let checked = self.file.load()?;
        if !checked.warnings.is_empty() {
            eprintln!("{}", checked.warnings);
        }
        Needs::of(&checked.config, &host.addresses(), &self.address)
            .map_err(|error| Failure::Usage(error.into()))
    }
}

impl OnHost {
    async fn up(&self, requests: &Requests) -> Result<(), Failure> {
        let mut host = Host::look(requests).await?;
        let needs = self.which.needs(&host)?;
        host.look_at_tunnels(&needs.tunnelled);
        let places = Places {
            state: self.record.state.clone(),
            bpffs: self.bpffs.clone(),
        };
        let mut done = Vec::new();
        let outcome = realserver::up(requests, &needs, &host, &places, &mut done).await;
        let back = "`appliance realserver down` takes back what was done";
        told(outcome, &done, "nothing to do", back)?;
        let found = self.findings(requests, &needs, Host::look(requests).await?);
        let found = found.await?;
        let wrong: Vec<_> = found.into_iter().filter(|one| one.is_wrong()).collect();
        print(&lines(&wrong, ""))?;
        verdict(wrong.len())
    }

    async fn status(&self, requests: &Requests) -> Result<(), Failure> {
        let host = Host::look(requests).await?;
        let needs = self.which.needs(&host)?;
        let found = self.findings(requests, &needs, host).await?;
        let servers: Vec<String> = needs.servers.iter().map(ToString::to_string).collect();
        print(&format!("real server {}\n", servers.join(", ")))?;
        print(&lines(&found, "its virtual servers need nothing here"))?;
        verdict(found.iter().filter(|one| one.is_wrong()).count())
    }

    async fn findings(
        &self,
        requests: &Requests,
        needs: &Needs,
        mut host: Host,
    ) -> Result<Vec<realserver::Finding>, anyhow::Error> {
        host.look_at_replies(requests, &needs.translated).await?;
        host.look_at_tunnels(&needs.tunnelled);
        let record = Record::load(&self.record.state)?;
        Ok(realserver::findings(needs, &host, &record, &self.gateway))
    }
}

/// Prints what was done, also if it came to nothing in the end, with what to do about that.
fn told(
    outcome: anyhow::Result<()>,
    done: &[String],
    nothing: &str,
    remedy: &str,
) -> Result<(), Failure> {
    let Err(error) = outcome else {
        return print(&lines(done, nothing));
    };
    if done.is_empty() {
        return Err(error.into());
    }
    print(&lines(done, ""))?;
    Err(anyhow!("{error:#}; {remedy}").into())
}

fn lines<T: ToString>(items: &[T], none: &str) -> String {
    if items.is_empty() && !none.is_empty() {
        return format!("{none}\n");
    }
    items.iter().map(|item| item.to_string() + "\n").collect()
}

fn verdict(wrong: usize) -> Result<(), Failure> {
    if wrong == 0 {
        return Ok(());
    }
    Err(anyhow!("{} on this real server", count(wrong, "fault")).into())
}
