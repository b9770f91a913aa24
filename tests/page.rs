//! The bridge's page in a real browser, at a phone's width and a desktop's.
//!
//! `RIDGEWAY_SCREENSHOTS=DIR ./test.sh page` leaves pictures of each step in `DIR`.

use crate::support::{
    browser::Browser,
    site::{Options, Site},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_person_enrols_a_finger_on_the_page() {
    let site = Site::start(Options::default()).await;
    let (address, key) = site.cloud_login();
    for (width, height, user) in [(390, 844, "phone-user"), (1280, 800, "desktop-user")] {
        let name = |step: &str| format!("page-{width}-{step}");
        let mut browser = Browser::start(width, height).await;
        browser.open(&format!("http://{address}/")).await;
        browser.until_shown("API key").await;
        browser.picture(&name("1-sign-in")).await;

        browser.fill("#key", "ak_live_wrong").await;
        browser.click("#sign-in-form button").await;
        browser.until("!document.querySelector('#sign-in-error').hidden").await;
        browser.picture(&name("2-wrong-key")).await;
        // The browser's own line about the refusal; from here on there must be none.
        browser.errors.clear();

        browser.fill("#key", &key).await;
        browser.click("#sign-in-form button").await;
        browser.until_shown("HQ lobby").await;
        browser.until("document.querySelectorAll('#reader option').length > 0").await;
        browser.picture(&name("3-work")).await;

        browser.fill("#user", user).await;
        browser.click("#enrol-start").await;
        for placement in 1..=3u64 {
            browser.until_shown(&format!("place finger {placement} of 3")).await;
            browser.picture(&name(&format!("4-place-{placement}"))).await;
            site.sensor(0).press(&format!("{user}/thumb"), placement).await;
        }
        browser.until_shown(&format!("enrolled {user}")).await;
        browser.picture(&name("5-enrolled")).await;

        site.sensor(0).press(&format!("{user}/thumb"), 9).await;
        browser
            .until(&format!("document.querySelector('#events').innerText.includes('{user}')"))
            .await;
        browser.picture(&name("6-identified")).await;

        let overflow = "document.documentElement.scrollWidth <= window.innerWidth";
        assert_eq!(browser.eval(overflow).await, true, "nothing sticks out at {width} px");
        for url in &browser.requested {
            assert!(url.contains(&address), "the page asks somebody else: {url}");
        }
        assert_eq!(browser.errors, Vec::<String>::new(), "the browser complains");
    }
}
