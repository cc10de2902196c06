//! `appliance lab`, and the hidden command of the responders in it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use dataplane::bpf::decap::TunnelEnd;
use dataplane::service::Tunnel;

use super::config_file::Syntax;
use super::{ConfigFile, EXIT_STATUS, Failure, print};
use crate::lab::plan::{Listen, Protocol};
use crate::lab::responder::{self, Answers};
use crate::lab::{self, Options};

/// Rehearse a configuration on this machine, in network namespaces
///
/// Builds the network that the file describes: a client behind a router, the
/// director (two if the file has a vrrp_instance), and one namespace for each
/// real server with a built-in responder that names itself. Runs the appliance
/// in it with the file unchanged (the second director has a lower priority),
/// sends real requests and prints what each real server served. Then a real
/// server dies and returns, then the master director: how long did it take,
/// how many requests failed? It does DR, NAT, TUN and FULLNAT.
///
/// Nothing of this machine's own network is touched, and everything that was
/// made is removed at the end, also after Ctrl-C. Needs root and iproute2.
///
/// Exit status 1 also if something did not go as the file promises: a request
/// failed, shares are off by more than 5 %, a check took longer than it may.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUS)]
pub struct Lab {
    // Not ConfigFile: clap takes an optional group that holds another for absent.
    /// The configuration file: *.toml is TOML, any other name keepalived.conf syntax
    #[arg(value_name = "CONFIG")]
    path: Option<PathBuf>,
    #[command(flatten)]
    syntax: Syntax,
    /// Leave the network and everything in it running at the end
    #[arg(long)]
    keep: bool,
    /// What to do after the traffic: `default` breaks things, `none` does not
    #[arg(long, value_enum, value_name = "SCRIPT", default_value = "default")]
    script: Script,
    /// Requests to each virtual server
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,
    /// Remove the labs that --keep left, and do nothing else
    #[arg(long, conflicts_with_all = ["path", "keep", "script", "requests"])]
    remove: bool,
}

/// Values of `--script`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Script {
    Default,
    None,
}

impl Lab {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Exit status 2 for a wrong file; 1 when the rehearsal could not be held
    /// or did not go as it should.
    pub fn run(self) -> Result<(), Failure> {
        if self.remove {
            let lines = lab::remove()?;
            return print(&lines.concat());
        }
        let file = ConfigFile {
            path: self
                .path
                .ok_or_else(|| Failure::Usage(anyhow!("lab needs a CONFIG, or --remove")))?,
            syntax: self.syntax,
        };
        let checked = file.load()?;
        if !checked.warnings.is_empty() {
            eprintln!("{}", checked.warnings);
        }
        let mut run_arguments = vec![file.path.clone().into_os_string()];
        run_arguments.extend(file.syntax.arguments());
        let options = Options {
            program: std::env::current_exe().context("cannot find this program's file")?,
            run_arguments,
            keep: self.keep,
            break_things: self.script == Script::Default,
            requests: self.requests,
        };
        if lab::rehearse(&checked.config, &options)? {
            Ok(())
        } else {
            Err(anyhow!("the rehearsal did not go as it should").into())
        }
    }
}

/// The responder of one real server in the lab.
#[derive(Debug, clap::Args)]
pub struct LabResponder {
    /// The real server's address, its name in every answer
    #[arg(long)]
    name: IpAddr,
    /// `tcp:ADDRESS:PORT` or `udp:ADDRESS:PORT`
    #[arg(long, value_parser = listen)]
    listen: Vec<Listen>,
    /// `STATUS=PATH`: a path with another status than 200
    #[arg(long, value_parser = status)]
    status: Vec<(String, u16)>,
    /// `ipip:ADDRESS`, `gre:ADDRESS` or `gue/PORT:ADDRESS`: a tunnel that ends here
    #[arg(long, value_parser = tunnel_end)]
    tunnel: Vec<TunnelEnd>,
}

impl LabResponder {
    /// Serves until it is killed.
    ///
    /// # Errors
    ///
    /// Exit status 1 when a socket cannot be bound, or tunnels cannot end here.
    pub fn run(self) -> Result<(), Failure> {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().context("cannot start tokio")?;
        let answers = Answers {
            name: self.name,
            statuses: self.status,
        };
        Ok(runtime.block_on(responder::serve(answers, &self.listen, &self.tunnel))?)
    }
}

fn listen(text: &str) -> Result<Listen, String> {
    let (protocol, address) = text.split_once(':').ok_or("no protocol")?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => return Err(format!("{other} is neither tcp nor udp")),
    };
    let address: SocketAddr = address.parse().map_err(|error| format!("{error}"))?;
    Ok(Listen { protocol, address })
}

fn status(text: &str) -> Result<(String, u16), String> {
    let (status, path) = text.split_once('=').ok_or("no =")?;
    let status = status.parse().map_err(|error| format!("{error}"))?;
    Ok((path.to_string(), status))
}

fn tunnel_end(text: &str) -> Result<TunnelEnd, String> {
    let (tunnel, address) = text.split_once(':').ok_or("no tunnel")?;
    let tunnel = match tunnel.split_once('/') {
        None if tunnel == "ipip" => Tunnel::Ipip,
        None if tunnel == "gre" => Tunnel::Gre,
        Some(("gue", port)) => Tunnel::Gue {
            port: port.parse().map_err(|error| format!("{error}"))?,
        },
        _ => return Err(format!("{tunnel} is none of ipip, gre and gue/PORT")),
    };
    let address = address.parse().map_err(|error| format!("{error}"))?;
    Ok(TunnelEnd { address, tunnel })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_is_read_as_the_lab_writes_it() {
        for text in ["tcp:10.0.0.1:80", "udp:[2001:db8::1]:53"] {
            assert_eq!(listen(text).unwrap().to_string(), text);
        }
        for wrong in ["10.0.0.1:80", "sctp:10.0.0.1:80", "tcp:10.0.0.1"] {
            assert!(listen(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ends_of_tunnels_are_read_as_the_lab_writes_them() {
        for text in ["ipip:10.0.0.1", "gre:2001:db8::1", "gue/6080:10.0.0.1"] {
            assert_eq!(responder::argument(&tunnel_end(text).unwrap()), text);
        }
        for wrong in [
            "10.0.0.1",
            "ipip/1:10.0.0.1",
            "gue:10.0.0.1",
            "gue/x:10.0.0.1",
            "ipip:a",
        ] {
            assert!(tunnel_end(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn statuses_may_have_any_path() {
        assert_eq!(status("204=/a=b").unwrap(), ("/a=b".to_string(), 204));
        assert!(status("204").is_err() && status("x=/").is_err());
    }
}
