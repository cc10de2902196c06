//! `appliance probe`: what AF_XDP can do on the interfaces of this machine.

use anyhow::{Context, anyhow};

use super::{EXIT_STATUS, Failure, print};
use crate::netlink::Requests;
use crate::probe::{Report, facts, judge};

/// Say what AF_XDP can do on each interface, and why not more
///
/// Asks the kernel and the drivers; nothing is changed or tried. For each
/// interface: what "appliance run" would choose, the facts behind it, and what
/// stands in the way with its remedy, marked by "!".
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUS)]
pub struct Probe {
    /// The interfaces; without any, all that are Ethernet
    #[arg(value_name = "IFACE")]
    interfaces: Vec<String>,
    /// Print JSON: an array
    #[arg(long)]
    json: bool,
}

impl Probe {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Exit status 2 for an interface that does not exist; 1 when the kernel
    /// cannot be asked.
    pub fn run(self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot make an event loop")?;
        let links = runtime.block_on(async {
            let requests = Requests::open().context("cannot talk to the kernel")?;
            Ok::<_, anyhow::Error>(requests.host_links().await?)
        })?;
        let chosen: Vec<_> = if self.interfaces.is_empty() {
            links.iter().filter(|link| link.ethernet).collect()
        } else {
            let named = self.interfaces.iter().map(|name| {
                let found = links.iter().find(|link| link.name == *name);
                found.ok_or_else(|| {
                    let have: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
                    let have = have.join(", ");
                    Failure::Usage(anyhow!("interface {name}: not found; there are: {have}"))
                })
            });
            named.collect::<Result<_, _>>()?
        };
        let reports = chosen.iter().map(|link| judge(&facts(link, &links)));
        let reports: Vec<Report> = reports.collect();
        if self.json {
            let json = serde_json::to_string_pretty(&reports).context("cannot write JSON")?;
            return print(&format!("{json}\n"));
        }
        if reports.is_empty() {
            return print("no Ethernet interfaces\n");
        }
        print(&render(&reports))
    }
}

fn render(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        if !text.is_empty() {
            text.push('\n');
        }
        let Report {
            interface,
            used_by_default: _,
            verdict,
            facts,
            remedies,
        } = report;
        text += &format!("{interface}: {verdict}\n");
        for fact in facts {
            text += &format!("    {:<30}{}\n", fact.name, fact.value);
        }
        for remedy in remedies {
            text += &format!("  ! {remedy}\n");
        }
    }
    text
}
