//! What all brokers are told: the configuration, checked, with the filters that the broker can write.

use std::path::{Path, PathBuf};

use super::{External, ExternalError, File, Kind};
use crate::{
    BrokerConfig, ClientCertificates, Credential, Listener, Secret, Tls, Transport, User, names,
};

/// A broker's configuration in the making.
pub(super) struct Plan<'a> {
    pub(super) kind: Kind,
    pub(super) config: &'a BrokerConfig,
    /// Where the broker will find its files, as text.
    pub(super) at: String,
    pub(super) accounts: Vec<Account<'a>>,
    notes: Vec<String>,
}

/// A user, and the filters of its role that this broker can write.
pub(super) struct Account<'a> {
    pub(super) user: &'a User,
    pub(super) publish: Vec<String>,
    pub(super) subscribe: Vec<String>,
}

/// The files of TLS, as text.
pub(super) struct TlsFiles {
    pub(super) certificate: String,
    pub(super) key: String,
    /// With client certificates: whose.
    pub(super) client_ca: Option<String>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        kind: Kind,
        config: &'a BrokerConfig,
        at: &Path,
    ) -> Result<Self, ExternalError> {
        config.check()?;
        if let Some(listener) = config.listeners.iter().find(|l| l.address.port() == 0) {
            return Err(ExternalError::Port { address: listener.address });
        }
        let dotted = matches!(kind, Kind::Nats | Kind::RabbitMq);
        if dotted && config.root.as_str().contains('.') {
            let root = config.root.to_string();
            return Err(ExternalError::Root { broker: kind.name(), root });
        }
        let mut plan =
            Self { kind, config, at: text(at)?, accounts: Vec::new(), notes: Vec::new() };
        for user in &config.users {
            let publish = plan.writable(user, user.role.publish_filters(&config.root));
            let subscribe = plan.writable(user, user.role.subscribe_filters(&config.root));
            plan.accounts.push(Account { user, publish, subscribe });
        }
        if let Some(path) = &config.users_file {
            plan.note(format!("the users in {} are not among them", path.display()));
        }
        Ok(plan)
    }

    /// Only an operator's own filters can be unwritable: Ridgeway's are plain.
    fn writable(&mut self, user: &User, filters: Vec<String>) -> Vec<String> {
        let (good, bad): (Vec<_>, Vec<_>) =
            filters.into_iter().partition(|filter| can_write(self.kind, filter));
        for filter in bad {
            let broker = self.kind.name();
            self.note(format!("{broker} can't write {filter:?}: {} has no right there", user.name));
        }
        good
    }

    /// Something to be told, once.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// A file's place, as the broker will see it.
    pub(super) fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.at.trim_end_matches('/'))
    }

    /// The listeners that the broker can serve: those for which `problem` finds none.
    pub(super) fn listeners(
        &mut self,
        problem: impl Fn(&Listener) -> Option<&'static str>,
    ) -> Result<Vec<&'a Listener>, ExternalError> {
        let mut served = Vec::new();
        for listener in &self.config.listeners {
            match problem(listener) {
                None => served.push(listener),
                Some(why) => self.note(format!("listener {} is left out: {why}", listener.address)),
            }
        }
        if served.is_empty() {
            let notes = std::mem::take(&mut self.notes);
            return Err(ExternalError::NoListener { broker: self.kind.name(), notes });
        }
        Ok(served)
    }

    /// Certificate, key and clients' authority; where they are to be put, if the embedded broker's own
    /// would be used.
    pub(super) fn tls(&mut self) -> Result<TlsFiles, ExternalError> {
        let fallback = Tls::default();
        let tls = self.config.tls.as_ref().unwrap_or(&fallback);
        let (certificate, key) = match (&tls.certificate_file, &tls.key_file) {
            (Some(certificate), Some(key)) => (text(certificate)?, text(key)?),
            _ => {
                let files = (self.file("server.pem"), self.file("server.key"));
                self.note(format!(
                    "put the broker's certificate and key into {} and {}: the embedded broker makes \
                     its own, and nobody would renew it here",
                    files.0, files.1
                ));
                files
            }
        };
        let client_ca = match (tls.client_certificates, &tls.client_ca_file) {
            (ClientCertificates::Off, _) => None,
            (_, Some(file)) => Some(text(file)?),
            (_, None) => {
                let file = self.file("client-ca.pem");
                self.note(format!("put the authority of the clients' certificates into {file}"));
                Some(file)
            }
        };
        Ok(TlsFiles { certificate, key, client_ca })
    }

    pub(super) fn client_certificates(&self) -> ClientCertificates {
        self.config.tls.as_ref().map_or(ClientCertificates::Off, |tls| tls.client_certificates)
    }

    /// The password that can be hashed for the broker; a note about what is to be done without one.
    pub(super) fn password(&mut self, user: &User, set_it: &str) -> Option<Secret> {
        match &user.credential {
            Credential::Secret(secret) => Some(secret.clone()),
            Credential::Argon2id(_) => {
                self.note(format!(
                    "{}: only the hash of its password is known, and {} can't read it; set the \
                     password anew: {set_it}",
                    user.name,
                    self.kind.name()
                ));
                None
            }
            Credential::Certificate => None,
        }
    }

    pub(super) fn done(self, files: Vec<(&'static str, String)>, next: Vec<String>) -> External {
        let files = files.into_iter().map(|(name, text)| File { name, text }).collect();
        External { files, notes: self.notes, next }
    }
}

/// Whether the broker can write this filter and means the same by it.
fn can_write(kind: Kind, filter: &str) -> bool {
    // The embedded broker lets nobody use other names, whatever was granted.
    if !names::is_filter(filter) {
        return false;
    }
    match kind {
        Kind::Mosquitto => filter.trim() == filter,
        // Placeholders, and Erlang's strings.
        Kind::Emqx => filter.is_ascii() && !filter.contains(['$', '"', '\\']),
        Kind::Nats => {
            let plain = |level: &str| {
                !level.is_empty() && !level.contains(['.', '*', '>', '"', '\\', ' ', '$'])
            };
            filter.split('/').all(plain)
        }
        Kind::RabbitMq => !filter.contains(['.', '*']),
    }
}

/// An absolute path as text without what would end a line or a string.
fn text(path: &Path) -> Result<String, ExternalError> {
    let failed = || ExternalError::Path { path: path.to_owned() };
    let path: PathBuf = std::path::absolute(path).map_err(|_| failed())?;
    let text = path.to_str().ok_or_else(failed)?;
    if text.contains(['"', '\\']) || text.contains(char::is_control) {
        return Err(failed());
    }
    Ok(text.to_owned())
}

/// What the broker serves besides plain TCP.
pub(super) fn is_websocket(listener: &Listener) -> bool {
    listener.transport == Transport::WebSocket
}
