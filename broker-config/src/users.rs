//! Who may connect: the owner's own users, and those of the users file, which may change meanwhile.
//!
//! | a client shows | it is let in when |
//! |---|---|
//! | a certificate | it was checked, its common name is a user, and the name in CONNECT, if any, is the same |
//! | name and password | the user's random secret is this (compared in constant time), or its Argon2id hash is of this |
//! | nothing | the configuration names the user that such a client is |
//!
//! An Argon2id check takes tens of milliseconds of a core and some memory, by design. So it runs beside
//! the async threads, two at a time; a login that was right is remembered (as a keyed digest, so that
//! memory holds no password) and costs nothing the next time; and an address from which many wrong ones
//! came is refused without a check (`failures`). A name that is no user's costs a check as well, so
//! that time doesn't tell which names exist.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
    time::Instant,
};

use aws_lc_rs::hmac;
use tokio::sync::Semaphore;
use topics::Role;

use crate::{
    config::{BrokerConfig, Credential, StartError, User},
    refusal::Refusal,
    session::lock,
};

mod failures;
mod file;
mod password;

use failures::Failures;
pub use file::{Entry, RoleName, Rules, UsersFile, UsersFileError};
pub use password::hash as hash_password;

/// Argon2id checks at the same time.
const CHECKS: usize = 2;
/// Logins remembered; further ones are checked each time.
const MAX_REMEMBERED: usize = 10_000;

/// What a client says of itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim<'a> {
    /// Nothing.
    Nobody,
    /// A name and a password.
    Password { name: &'a str, password: &'a str },
    /// A certificate that was checked; its common name. The name in CONNECT, if any, must be the same.
    Certificate { name: &'a str, login: Option<&'a str> },
}

/// Who a client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) user: String,
    pub(crate) role: Role,
}

impl Identity {
    fn of(user: &User) -> Self {
        Self { user: user.name.clone(), role: user.role.clone() }
    }
}

/// Everybody who may connect to a broker with this configuration, those of the users file after its own.
pub fn everybody(config: &BrokerConfig) -> Result<Vec<User>, UsersFileError> {
    let mut all = config.users.clone();
    if let Some(path) = &config.users_file {
        let (file, rules) = (UsersFile::new(path), Rules::of(config));
        for entry in file.entries()? {
            all.push(file.user(&entry, &rules)?);
        }
    }
    Ok(all)
}

impl Rules {
    fn of(config: &BrokerConfig) -> Self {
        Self {
            gateway: config.gateway.clone(),
            carries_link: config.carries_link,
            taken: config.users.iter().map(|user| user.name.clone()).collect(),
        }
    }
}

type Everybody = HashMap<String, User>;

/// Everybody who may connect.
pub(crate) struct Users {
    own: Vec<User>,
    file: Option<UsersFile>,
    rules: Rules,
    anonymous: Option<String>,
    all: RwLock<Arc<Everybody>>,
    /// The file's text that `all` was made of, and then the last that could not be used.
    seen: Mutex<Option<String>>,
    checks: Arc<Semaphore>,
    failures: Mutex<Failures>,
    remembered: Mutex<HashMap<String, hmac::Tag>>,
    key: hmac::Key,
    /// Of a password that nobody has, for names that nobody has; made when first needed.
    nobodys_hash: Arc<OnceLock<String>>,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Users {
    pub(crate) fn new(config: &BrokerConfig) -> Result<Self, StartError> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new())
            .map_err(|_| StartError::Random)?;
        let users = Self {
            own: config.users.clone(),
            file: config.users_file.clone().map(UsersFile::new),
            rules: Rules::of(config),
            anonymous: config.anonymous.clone(),
            all: RwLock::default(),
            seen: Mutex::default(),
            checks: Arc::new(Semaphore::new(CHECKS)),
            failures: Mutex::new(Failures::new(Instant::now())),
            remembered: Mutex::default(),
            key,
            nobodys_hash: Arc::default(),
        };
        users.reload()?;
        if let Some(name) = &users.anonymous {
            let all = users.all();
            let role = all.get(name).map(|user| &user.role);
            // The owner's own are nobody else's.
            if matches!(
                role,
                None | Some(Role::EdgeGateway(_) | Role::CloudGateway(_) | Role::Bridge)
            ) {
                return Err(StartError::Anonymous { name: name.clone() });
            }
        }
        Ok(users)
    }

    /// Reads the file again; whose connections must end because they are not what they were. An error
    /// only once for the same text.
    pub(crate) fn reload(&self) -> Result<Vec<String>, UsersFileError> {
        let text = match &self.file {
            Some(file) => file.text()?,
            None => String::new(),
        };
        {
            let mut seen = lock(&self.seen);
            if seen.as_ref() == Some(&text) {
                return Ok(Vec::new());
            }
            *seen = Some(text.clone());
        }
        let mut all: Everybody =
            self.own.iter().map(|user| (user.name.clone(), user.clone())).collect();
        if let Some(file) = &self.file {
            for entry in file.parse(&text)? {
                let user = file.user(&entry, &self.rules)?;
                all.insert(user.name.clone(), user);
            }
        }
        let before = std::mem::replace(
            &mut *self.all.write().unwrap_or_else(PoisonError::into_inner),
            Arc::new(all.clone()),
        );
        let changed: Vec<String> = before
            .iter()
            .filter(|(name, user)| all.get(*name) != Some(user))
            .map(|(name, _)| name.clone())
            .collect();
        let mut remembered = lock(&self.remembered);
        for name in &changed {
            remembered.remove(name);
        }
        Ok(changed)
    }

    fn all(&self) -> Arc<Everybody> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who makes this claim, if it is true.
    pub(crate) async fn authenticate(
        &self,
        claim: Claim<'_>,
        from: IpAddr,
    ) -> Result<Identity, Refusal> {
        let all = self.all();
        match claim {
            Claim::Nobody => {
                let user = self.anonymous.as_ref().and_then(|name| all.get(name));
                user.map(Identity::of).ok_or(Refusal::BadCredentials)
            }
            Claim::Certificate { name, login } => {
                let user = all.get(name).filter(|_| login.is_none_or(|login| login == name));
                user.map(Identity::of).ok_or(Refusal::BadCredentials)
            }
            Claim::Password { name, password } => self.check(&all, name, password, from).await,
        }
    }

    async fn check(
        &self,
        all: &Everybody,
        name: &str,
        password: &str,
        from: IpAddr,
    ) -> Result<Identity, Refusal> {
        let user = all.get(name);
        let hash = match user.map(|user| &user.credential) {
            Some(Credential::Secret(secret)) if secret.matches(password) => {
                return user.map(Identity::of).ok_or(Refusal::BadCredentials);
            }
            Some(Credential::Argon2id(hash)) => {
                if self.remembers(name, hash, password) {
                    return user.map(Identity::of).ok_or(Refusal::BadCredentials);
                }
                Some(hash)
            }
            // Whoever guesses at these learns nothing from the time it takes.
            Some(Credential::Secret(_) | Credential::Certificate) | None => None,
        };
        if !lock(&self.failures).may_try(from, Instant::now()) {
            return Err(Refusal::TooManyFailures);
        }
        // Never closed, so there is always a turn to come.
        let _turn = self.checks.acquire().await.map_err(|_| Refusal::Unavailable)?;
        // Meanwhile others from there may have used up their tries, or the same login been right.
        if hash.is_some_and(|hash| self.remembers(name, hash, password)) {
            return user.map(Identity::of).ok_or(Refusal::BadCredentials);
        }
        if !lock(&self.failures).may_try(from, Instant::now()) {
            return Err(Refusal::TooManyFailures);
        }
        let right = self.verify(hash.cloned(), password.to_owned()).await;
        match (user, hash) {
            (Some(user), Some(hash)) if right => {
                self.remember(name, hash, password);
                Ok(Identity::of(user))
            }
            _ => {
                lock(&self.failures).failed(from, Instant::now());
                Err(Refusal::BadCredentials)
            }
        }
    }

    /// Off the async threads: it takes tens of milliseconds. Without a hash it takes as long.
    async fn verify(&self, hash: Option<String>, password: String) -> bool {
        let nobodys = self.nobodys_hash.clone();
        let check = tokio::task::spawn_blocking(move || match hash {
            Some(hash) => password::verify(&hash, &password),
            None => {
                let made = || {
                    let random = crate::random_hex().unwrap_or_default();
                    password::hash(&random).unwrap_or_default()
                };
                // For its time only.
                let _ = password::verify(nobodys.get_or_init(made), &password);
                false
            }
        });
        check.await.unwrap_or(false)
    }

    fn digest(&self, name: &str, hash: &str, password: &str) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [name, hash, password] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.sign()
    }

    fn remembers(&self, name: &str, hash: &str, password: &str) -> bool {
        let digest = self.digest(name, hash, password);
        let remembered = lock(&self.remembered).get(name).copied();
        remembered.is_some_and(|tag| {
            use subtle::ConstantTimeEq as _;
            tag.as_ref().ct_eq(digest.as_ref()).into()
        })
    }

    fn remember(&self, name: &str, hash: &str, password: &str) {
        let digest = self.digest(name, hash, password);
        let mut remembered = lock(&self.remembered);
        if remembered.len() < MAX_REMEMBERED || remembered.contains_key(name) {
            remembered.insert(name.to_owned(), digest);
        }
    }
}

#[cfg(test)]
mod tests;
