//! The command for the other node, which `pair create` prints: with all that both nodes have to be told alike.
//!
//! What is the other node's own (its leg's file, its portal's address, its interface) has a word in capitals in its place.

use std::path::Path;

use clap::ValueEnum;

use super::{Etcd, Place};
use crate::show;

/// Words of a command line.
struct Words(String);

impl Words {
    fn option(&mut self, name: &str, value: impl core::fmt::Display) {
        let value = value.to_string();
        let plain = |at: char| at.is_ascii_alphanumeric() || "-_./:,@%+=[]".contains(at);
        let quoted =
            if value.chars().all(plain) { value } else { format!("'{}'", value.replace('\'', r"'\''")) };
        self.0 += &format!(" --{name} {quoted}");
    }

    fn given(&mut self, name: &str, value: Option<impl core::fmt::Display>) {
        if let Some(value) = value {
            self.option(name, value);
        }
    }

    fn chosen(&mut self, name: &str, value: &impl ValueEnum) {
        self.option(name, show::choice(value));
    }

    fn file(&mut self, name: &str, path: Option<&Path>) {
        self.given(name, path.map(Path::display));
    }
}

/// The command, for a pair that was made at `place`.
pub(super) fn command(place: &Place, uuid: &str) -> String {
    let mut words = Words(format!("gemel pair join {}", place.name));
    words.option("uuid", uuid);
    words.option("leg", "FILE");
    for (listen, peer) in place.peer.iter().zip(&place.listen) {
        words.option("listen", listen);
        words.option("peer", peer);
    }
    words.option("portal", "ADDRESS:PORT");
    words.option("allow", &place.allow);
    words.chosen("durability", &place.durability);
    words.chosen("profile", &place.profile);
    words.chosen("standby", &place.standby);
    words.chosen("alua", &place.alua);
    words.given("degraded-start-ms", place.degraded_start_ms);
    words.given("max-stall-ms", place.max_stall_ms);
    words.given("disk-timeout-ms", place.disk_timeout_ms);
    words.file("secret-file", place.secret_file.as_deref());
    for (name, value) in place.nic.for_peer(&place.listen, &place.peer) {
        words.option(name, value);
    }
    etcd(&mut words, &place.etcd);
    words.0
}

fn etcd(words: &mut Words, etcd: &Etcd) {
    if etcd.etcd.is_empty() {
        return;
    }
    words.option("etcd", etcd.etcd.join(","));
    words.given("etcd-user", etcd.etcd_user.as_deref());
    words.file("etcd-password-file", etcd.etcd_password_file.as_deref());
    words.file("etcd-ca", etcd.etcd_ca.as_deref());
    words.file("etcd-cert", etcd.etcd_cert.as_deref());
    words.file("etcd-key", etcd.etcd_key.as_deref());
}

#[cfg(test)]
mod tests {
    use clap::{Parser, Subcommand};

    use super::super::Pair;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Top,
    }

    #[derive(Subcommand)]
    enum Top {
        #[command(subcommand)]
        Pair(Pair),
    }

    const OWN: [&str; 6] = ["--leg", "a.img:1G", "--portal", "10.1.0.1:3260", "--listen", "10.0.0.1:3261"];
    const BOTH: [&str; 30] = [
        "--allow",
        "10.1.0.0/16",
        "--durability",
        "sync-cached",
        "--profile",
        "fast",
        "--standby",
        "refuse",
        "--alua",
        "explicit",
        "--degraded-start-ms",
        "3000",
        "--max-stall-ms",
        "900",
        "--disk-timeout-ms",
        "7000",
        "--secret-file",
        "/etc/gemel/a pair's.chap",
        "--etcd",
        "http://10.2.0.1:2379,http://10.2.0.2:2379",
        "--etcd-user",
        "gemel",
        "--etcd-password-file",
        "/etc/gemel/etcd.pw",
        "--etcd-ca",
        "/etc/gemel/ca.pem",
        "--etcd-cert",
        "/etc/gemel/cert.pem",
        "--etcd-key",
        "/etc/gemel/key.pem",
    ];

    fn parsed<'a>(words: impl IntoIterator<Item = &'a str>) -> Pair {
        let Line { command: Top::Pair(command) } =
            Line::try_parse_from(words).unwrap_or_else(|why| panic!("{why}"));
        command
    }

    fn created(more: &[&str]) -> String {
        let words = ["gemel", "pair", "create", "vol0", "--peer", "10.0.0.2:3261"];
        let Pair::Create { place, .. } = parsed([&words, &OWN[..], more].concat()) else {
            panic!("it creates");
        };
        command(&place, "0000-11")
    }

    /// What is the node's own is filled in, as an administrator does.
    fn joined(line: &str) -> Place {
        let line = line.replace("ADDRESS:PORT", "10.1.0.2:3260").replace("INTERFACE", "repl");
        let words = std::process::Command::new("sh")
            .args(["-c", &format!("printf '%s\\n' {line}")])
            .output()
            .expect("a shell reads it")
            .stdout;
        let words = String::from_utf8(words).expect("text");
        let Pair::Join { place, uuid } = parsed(words.lines()) else { panic!("it joins") };
        assert_eq!(uuid, "0000-11");
        place
    }

    #[test]
    fn the_other_node_is_told_all_that_this_one_was() {
        let line = created(&BOTH);
        let place = joined(&line);
        assert_eq!(
            (place.listen[0].to_string(), place.peer[0].to_string()),
            ("10.0.0.2:3261".into(), "10.0.0.1:3261".into())
        );
        assert!(BOTH.iter().step_by(2).all(|option| line.contains(option)), "{line}");
        // That one, asked for the other one's command, has the same words for all of it.
        let both = |line: &str| line.split_once("--allow").expect("an option").1.to_owned();
        assert_eq!(both(&command(&place, "0000-11")), both(&line));
    }

    #[test]
    fn what_was_not_asked_for_is_not_in_it() {
        let line = created(&[]);
        assert!(!line.contains("etcd") && !line.contains("nic") && !line.contains("-ms"), "{line}");
        joined(&line);
        let line = created(&["--nic", "eth1", "--nic-address", "10.0.0.1/24"]);
        let place = joined(&line);
        assert!(line.contains("--nic INTERFACE --nic-address 10.0.0.2/24"), "{line}");
        assert_eq!(
            place.nic.for_peer(&place.listen, &place.peer),
            [
                ("nic", "INTERFACE".to_owned()),
                ("nic-address", "10.0.0.1/24".into()),
                ("nic-mtu", "9000".into()),
                ("nic-device", "packet".into())
            ]
        );
    }

    /// One over an interface of its own, the other over kernel TCP.
    #[test]
    fn two_links_are_told_in_their_order() {
        let second = ["--listen", "10.9.0.1:3261", "--peer", "10.9.0.2:3261"];
        let nic = ["--nic", "eth1", "--nic-address", "10.9.0.1/24"];
        let line = created(&[&second[..], &nic].concat());
        assert!(line.contains("--listen 10.9.0.2:3261 --peer 10.9.0.1:3261"), "{line}");
        assert!(line.contains("--nic INTERFACE --nic-address 10.9.0.2/24"), "{line}");
        let ends = |ends: &[std::net::SocketAddr]| ends.iter().map(ToString::to_string).collect::<Vec<_>>();
        let place = joined(&line);
        assert_eq!(ends(&place.listen), ["10.0.0.2:3261", "10.9.0.2:3261"]);
        assert_eq!(ends(&place.peer), ["10.0.0.1:3261", "10.9.0.1:3261"]);
    }
}
