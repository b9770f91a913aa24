//! Passwords that people chose: Argon2id.

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};

/// 7 MiB and five passes: of OWASP's settings of equal strength the one that takes the least memory,
/// for gateways on small boards.
const MEMORY_KIB: u32 = 7 * 1024;
const PASSES: u32 = 5;
const LANES: u32 = 1;
/// What a hash from elsewhere may ask for at most, memory times passes as well: a login costs that much,
/// and two at a time must not keep others waiting for seconds.
const MAX_MEMORY_KIB: u32 = 64 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 4;
const MAX_WORK_KIB: u32 = 192 * 1024;

/// The hash of a password, with a random salt, as it stands in a users file.
pub fn hash(password: &str) -> Result<String, String> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| error.to_string())?;
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| error.to_string())?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_with_salt(password.as_bytes(), &salt)
        .map(|hash| hash.to_string())
        .map_err(|error| error.to_string())
}

/// Whether `hash` is of `password`.
pub(super) fn verify(hash: &str, password: &str) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
}

/// Refuses what isn't a hash of ours, or asks for more work than a login may cost.
pub(super) fn check(hash: &str) -> Result<(), &'static str> {
    let hash = PasswordHash::new(hash)
        .map_err(|_| "it is no hash; make one with `ridgeway broker user add`")?;
    if hash.algorithm.as_str() != "argon2id" || hash.hash.is_none() || hash.salt.is_none() {
        return Err("only argon2id hashes are taken");
    }
    let within = |name: &str, most: u32| {
        hash.params.get_decimal(name).is_some_and(|value| (1..=most).contains(&value))
    };
    let number = |name: &str| hash.params.get_decimal(name).unwrap_or(0);
    let fits = within("m", MAX_MEMORY_KIB)
        && within("t", MAX_PASSES)
        && within("p", MAX_LANES)
        && number("m") >= 8 * number("p")
        && number("m") * number("t") <= MAX_WORK_KIB;
    if fits {
        Ok(())
    } else {
        Err("its parameters must be within m=65536, t=16, p=4, m x t = 196608")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_of_its_password_only_and_salted() {
        let (one, two) = (hash("correct horse").unwrap(), hash("correct horse").unwrap());
        assert_ne!(one, two);
        assert!(one.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{one}");
        assert_eq!(check(&one), Ok(()));
        assert!(verify(&one, "correct horse") && verify(&two, "correct horse"));
        assert!(!verify(&one, "correct horsf") && !verify(&one, "") && !verify("", ""));
    }

    #[test]
    fn hashes_that_cost_too_much_or_are_none_are_refused() {
        let good = hash("x").unwrap();
        for bad in [
            String::new(),
            "plain text".to_owned(),
            good.replace("m=7168", "m=4194304"),
            good.replace("t=5", "t=1000"),
            good.replace("p=1", "p=64"),
            good.replace("m=7168", "m=8").replace("p=1", "p=4"),
            good.replace("m=7168,t=5", "m=65536,t=16"),
            good.replace("argon2id", "argon2d"),
            good.rsplit_once('$').unwrap().0.to_owned(),
        ] {
            assert!(check(&bad).is_err(), "{bad}");
        }
    }
}
