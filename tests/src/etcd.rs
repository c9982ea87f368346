//! An etcd for a test, of one member or of three: their own folders and ports, ended by process id.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::node::{has_tool, pause};

/// Who may talk to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// Everybody.
    #[default]
    Open,
    /// Those with a certificate that the test's authority has signed, over TLS, and with a password.
    Closed,
}

/// A running etcd.
#[derive(Debug)]
pub struct Etcd {
    folder: TempDir,
    ports: [u16; 2],
    /// What its command begins with, and the addresses that it listens at.
    place: Vec<String>,
    listen: &'static str,
    security: Security,
    member: Member,
    child: Child,
}

/// Which one of a cluster it is.
#[derive(Clone, Debug)]
struct Member {
    name: String,
    /// All members, as `--initial-cluster` takes them.
    cluster: String,
}

impl Member {
    /// All of a cluster with these ports for one another.
    fn all(ports: &[u16]) -> Vec<Self> {
        let name = |at: usize| format!("member{at}");
        let entry = |(at, port): (usize, &u16)| format!("{}=http://127.0.0.1:{port}", name(at));
        let cluster = ports.iter().enumerate().map(entry).collect::<Vec<_>>().join(",");
        (0..ports.len()).map(|at| Self { name: name(at), cluster: cluster.clone() }).collect()
    }
}

/// Free ports on loopback, two for each of so many members.
fn free_ports<const MEMBERS: usize>() -> [[u16; 2]; MEMBERS] {
    let sockets =
        [(); MEMBERS].map(|()| [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port")));
    sockets.each_ref().map(|pair| pair.each_ref().map(|socket| socket.local_addr().expect("bound").port()))
}

const USER: &str = "gemel";
const PASSWORD: &str = "a password of ours";
const ROOT: &str = "root:the password of root";

impl Etcd {
    /// Starts one on loopback; `None`, with a line that says so, where etcd is not installed.
    ///
    /// # Panics
    /// When it does not answer within ten seconds.
    pub fn start() -> Option<Self> {
        let [ports] = free_ports();
        Self::start_at(Vec::new(), "127.0.0.1", ports, Security::Open)
    }

    /// As [`Etcd::start`], with TLS, client certificates and users.
    ///
    /// # Panics
    /// When it does not answer within ten seconds.
    pub fn start_closed() -> Option<Self> {
        if !has_tool("openssl") {
            return None;
        }
        let [ports] = free_ports();
        let etcd = Self::start_at(Vec::new(), "127.0.0.1", ports, Security::Closed)?;
        etcd.add_users();
        Some(etcd)
    }

    /// Starts one by a command that begins with something else, on its usual ports of all addresses there.
    ///
    /// # Panics
    /// When it does not answer within ten seconds.
    pub fn start_in(place: Vec<String>) -> Option<Self> {
        Self::start_at(place, "0.0.0.0", [2379, 2380], Security::Open)
    }

    fn start_at(
        place: Vec<String>,
        listen: &'static str,
        ports: [u16; 2],
        security: Security,
    ) -> Option<Self> {
        let member = Member::all(&ports[1..]).remove(0);
        let etcd = Self::spawned(place, listen, ports, security, member)?;
        etcd.wait();
        Some(etcd)
    }

    /// Started, and perhaps not ready yet.
    fn spawned(
        place: Vec<String>,
        listen: &'static str,
        ports: [u16; 2],
        security: Security,
        member: Member,
    ) -> Option<Self> {
        if !has_tool("etcd") || !has_tool("etcdctl") {
            return None;
        }
        // Its own syncs, on a disk that the tests load, would be what is measured.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        let folder = folder.expect("a folder");
        if security == Security::Closed {
            make_certificates(folder.path());
        }
        let child = spawn(&folder, &place, listen, ports, security, &member);
        Some(Self { folder, ports, place, listen, security, member, child })
    }

    fn wait(&self) {
        for _ in 0..500 {
            if self.ctl(&["get", "anything"]).is_some() {
                return;
            }
            pause(Duration::from_millis(20));
        }
        panic!("etcd does not answer");
    }

    /// Its client URL on loopback.
    pub fn url(&self) -> String {
        let scheme = if self.security == Security::Closed { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.ports[0])
    }

    /// A file of a closed one: `ca.pem`, `client.pem`, `client.key`, `password`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Arguments of `gemel pair` for a closed one.
    pub fn credentials(&self) -> Vec<String> {
        let file = |name: &str| self.file(name).display().to_string();
        [
            ("--etcd-ca", file("ca.pem")),
            ("--etcd-cert", file("client.pem")),
            ("--etcd-key", file("client.key")),
            ("--etcd-user", USER.to_owned()),
            ("--etcd-password-file", file("password")),
        ]
        .into_iter()
        .flat_map(|(key, value)| [key.to_owned(), value])
        .collect()
    }

    /// It is the leader of its cluster, as far as it knows.
    fn leads(&self) -> bool {
        let Some(told) = self.ctl(&["endpoint", "status", "--write-out=json"]) else { return false };
        let told: Value = serde_json::from_str(&told).expect("as asked for");
        let status = &told[0]["Status"];
        status["leader"] == status["header"]["member_id"]
    }

    /// What `etcdctl` says; `None` when it fails.
    ///
    /// # Panics
    /// When etcdctl cannot be run.
    pub fn ctl(&self, arguments: &[&str]) -> Option<String> {
        let output = self.ctl_as(Some(ROOT), arguments).or_else(|| self.ctl_as(None, arguments));
        output.map(|output| String::from_utf8_lossy(&output).into_owned())
    }

    fn ctl_as(&self, user: Option<&str>, arguments: &[&str]) -> Option<Vec<u8>> {
        if user.is_some() && self.security == Security::Open {
            return None;
        }
        let mut command = command_at(&self.place, "etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.url(), "--command-timeout", "2s"]);
        if self.security == Security::Closed {
            let file = |name: &str| self.file(name);
            command.arg("--cacert").arg(file("ca.pem"));
            command.arg("--cert").arg(file("client.pem")).arg("--key").arg(file("client.key"));
        }
        if let Some(user) = user {
            command.args(["--user", user]);
        }
        let output = command.args(arguments).stderr(Stdio::null()).output().expect("etcdctl");
        output.status.success().then_some(output.stdout)
    }

    fn add_users(&self) {
        std::fs::write(self.file("password"), PASSWORD).expect("a file");
        let user = format!("{USER}:{PASSWORD}");
        let steps: [&[&str]; 7] = [
            &["user", "add", ROOT],
            &["user", "grant-role", "root", "root"],
            &["role", "add", USER],
            &["role", "grant-permission", USER, "--prefix=true", "readwrite", "/gemel/"],
            &["user", "add", &user],
            &["user", "grant-role", USER, USER],
            &["auth", "enable"],
        ];
        for step in steps {
            assert!(self.ctl_as(None, step).is_some(), "etcdctl {step:?}");
        }
    }

    /// Sends a signal by name.
    ///
    /// # Panics
    /// When there is no `kill`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill");
        assert!(sent.success(), "kill -{name} {pid}");
    }

    /// SIGKILL; its data stay.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("a child");
    }

    /// Starts again, with its data.
    pub fn restart(&mut self) {
        let Self { folder, place, listen, ports, security, member, .. } = self;
        self.child = spawn(folder, place, listen, *ports, *security, member);
        self.wait();
    }

    /// Copies its data, as a backup does. It is down meanwhile.
    ///
    /// # Panics
    /// When they cannot be copied.
    pub fn back_up(&mut self) {
        self.kill();
        self.copy("data", "backup");
        self.restart();
    }

    /// Goes back to the data of the backup.
    ///
    /// # Panics
    /// When there is none.
    pub fn restore(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.file("data")).expect("data");
        self.copy("backup", "data");
        self.restart();
    }

    fn copy(&self, from: &str, to: &str) {
        let copied = Command::new("cp").arg("-r").arg(self.file(from)).arg(self.file(to)).status();
        assert!(copied.expect("cp").success(), "cp {from} {to}");
    }
}

/// Three members on loopback.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Etcd>,
}

impl Cluster {
    /// Starts them; `None`, with a line that says so, where etcd is not installed.
    ///
    /// # Panics
    /// When they do not answer within ten seconds.
    pub fn start() -> Option<Self> {
        let ports: [[u16; 2]; 3] = free_ports();
        let members = Member::all(&ports.map(|[_, peer]| peer)).into_iter().zip(ports);
        let members = members
            .map(|(member, ports)| Etcd::spawned(Vec::new(), "127.0.0.1", ports, Security::Open, member))
            .collect::<Option<Vec<_>>>()?;
        members.iter().for_each(Etcd::wait);
        Some(Self { members })
    }

    /// Their client URLs, as `--etcd` takes them.
    pub fn urls(&self) -> String {
        self.members.iter().map(Etcd::url).collect::<Vec<_>>().join(",")
    }

    /// The one that leads.
    ///
    /// # Panics
    /// When nobody does within ten seconds.
    pub fn leader(&self) -> usize {
        for _ in 0..500 {
            if let Some(leader) = self.members.iter().position(Etcd::leads) {
                return leader;
            }
            pause(Duration::from_millis(20));
        }
        panic!("no member leads");
    }

    /// SIGKILL; its data stay.
    pub fn kill(&mut self, member: usize) {
        self.members[member].kill();
    }

    /// Starts one again that was killed. With it there is a majority again.
    pub fn restart(&mut self, member: usize) {
        self.members[member].restart();
    }
}

fn command_at(place: &[String], name: &str) -> Command {
    match place {
        [] => Command::new(name),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(name);
            command
        }
    }
}

fn spawn(
    folder: &TempDir,
    place: &[String],
    listen: &str,
    [client, peer]: [u16; 2],
    security: Security,
    member: &Member,
) -> Child {
    let scheme = if security == Security::Closed { "https" } else { "http" };
    let (client, peer) = (format!("{scheme}://{listen}:{client}"), format!("http://127.0.0.1:{peer}"));
    let mut command = command_at(place, "etcd");
    if security == Security::Closed {
        let file = |name: &str| folder.path().join(name);
        command.arg("--cert-file").arg(file("server.pem")).arg("--key-file").arg(file("server.key"));
        command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(file("ca.pem"));
        // A token that is not used for a second has run out.
        command.args(["--auth-token-ttl", "1"]);
    }
    command
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .args(["--name", &member.name, "--initial-cluster", &member.cluster])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.path().join("log")).expect("a log file"))
        .spawn()
        .expect("etcd")
}

/// An authority, a certificate of etcd's, one of ours, and a stranger's authority.
fn make_certificates(folder: &Path) {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl");
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments:?}: {why}");
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    for (authority, subject) in [("ca", "/CN=test authority"), ("stranger", "/CN=another authority")] {
        let (pem, secret) = (format!("{authority}.pem"), format!("{authority}.key"));
        let mut request = vec!["req", "-x509"];
        request.extend(key);
        request.extend(["-subj", subject, "-keyout", &secret, "-out", &pem]);
        openssl(&request);
    }
    let extensions = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n";
    std::fs::write(folder.join("extensions"), extensions).expect("a file");
    for who in ["server", "client"] {
        let (request, secret, pem) = (format!("{who}.csr"), format!("{who}.key"), format!("{who}.pem"));
        let mut asked = vec!["req", "-new"];
        asked.extend(&key[..5]);
        // Without a common name: etcd would take it for a user.
        asked.extend(["-subj", "/O=gemel test", "-keyout", &secret, "-out", &request]);
        openssl(&asked);
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "extensions",
            "-out",
            &pem,
        ]);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // One that was killed by the test is reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
