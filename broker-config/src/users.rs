//! Who may connect: the owner's own users, and those of the users file.

use std::{collections::HashMap, net::IpAddr};

use topics::Role;

use crate::{
    config::{BrokerConfig, Credential, StartError, User},
    refusal::Refusal,
};

/// What a client says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// Everybody who may connect.
#[derive(Debug)]
pub(crate) struct Users {
    all: HashMap<String, User>,
    anonymous: Option<String>,
}

impl Users {
    pub(crate) fn new(config: &BrokerConfig) -> Result<Self, StartError> {
        let all = config.users.iter().map(|user| (user.name.clone(), user.clone())).collect();
        Ok(Self { all, anonymous: config.anonymous.clone() })
    }

    /// Who makes this claim, if it is true.
    pub(crate) async fn authenticate(
        &self,
        claim: Claim<'_>,
        _from: IpAddr,
    ) -> Result<Identity, Refusal> {
        let user = match claim {
            Claim::Nobody => self.anonymous.as_ref().and_then(|name| self.all.get(name)),
            Claim::Password { name, password } => self.all.get(name).filter(|user| {
                matches!(&user.credential, Credential::Secret(secret) if secret.matches(password))
            }),
            Claim::Certificate { name, login } => {
                self.all.get(name).filter(|_| login.is_none_or(|login| login == name))
            }
        };
        let user = user.ok_or(Refusal::BadCredentials)?;
        Ok(Identity { user: user.name.clone(), role: user.role.clone() })
    }
}
