//! The page in a real browser, with its scripts.

use serde_json::json;

use crate::fixture::Fixture;
use crate::page::fill;
use crate::webdriver::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn a_build_is_watched_cancelled_and_built_again() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let fixture = Fixture::start(&[("ROOT_PATH", "/builder")]).await;
    fixture.make_gate("gated");
    let id = fixture.build("gated").await;
    fixture.noted("gated.started").await;

    // Without the slash: the service leads to where relative addresses are right.
    browser.open(&fixture.url("/builder")).await;
    browser.wait_for("#status", "1 running").await;
    browser.click("tbody a").await;
    browser.wait_for("h1", "serve:gated").await;
    browser.wait_for("#status", "running").await;
    browser.wait_for("#log", "before the gate").await;
    browser.wait_for("#log-state", "live").await;

    browser.run("window.isTheSamePage = true").await;
    fixture.open_gate("gated").await;
    browser.wait_for("#log", "behind the gate").await;
    browser.wait_for("#status", "completed").await;
    browser.wait_for("#actions", "Retry").await;
    let same = browser.run("return window.isTheSamePage").await;
    assert_eq!(same, json!(true), "the page was not loaded again");
    let log = browser.text("#log").await;
    assert_eq!(log.matches("before the gate").count(), 1, "{log}");
    fixture.reach(&id, "completed").await;

    browser.click("#actions button").await;
    browser.wait_for("#actions", "Cancel").await;
    browser.wait_for("#log", "before the gate").await;
    let address = browser.run("return location.pathname").await;
    let again = address
        .as_str()
        .unwrap()
        .strip_prefix("/builder/builds/")
        .unwrap()
        .to_owned();
    assert_ne!(again, id);
    browser.click("#actions button").await;
    browser.wait_for("#status", "failed").await;
    browser.wait_for("#facts", "the build was cancelled").await;
    fixture.reach(&again, "failed").await;
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_keeps_itself_up_to_date() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let fixture = Fixture::start(&[]).await;
    browser.open(&fixture.url("/")).await;
    browser.wait_for("#live", "No builds here").await;
    let id = fixture.build("ok").await;
    fixture.reach(&id, "completed").await;
    browser.wait_for("tbody", "completed").await;
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_strangers_do_nothing() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let mut fixture = Fixture::start(&[]).await;
    let builds = fill(&mut fixture).await;
    browser.open(&fixture.url("/")).await;
    browser.wait_for("tbody", "<script>").await;
    for (name, width, scheme) in [
        ("list-light", 1280, "light"),
        ("list-dark", 1280, "dark"),
        ("list-narrow", 500, "light"),
    ] {
        browser.picture(name, width, scheme).await;
    }
    for (name, id) in [("failed", &builds.hostile), ("running", &builds.running)] {
        let path = format!("/builds/{id}");
        browser.open(&fixture.url(&path)).await;
        browser.wait_for("#log", "<script>").await;
        for (look, width, scheme) in [
            ("light", 1280, "light"),
            ("dark", 1280, "dark"),
            ("narrow", 500, "dark"),
        ] {
            let picture = format!("build-{name}-{look}");
            browser.picture(&picture, width, scheme).await;
        }
    }
    let ran = browser.run("return String(window.ran)").await;
    assert_eq!(ran, json!("undefined"));
    let elements = "return document.querySelectorAll('main script, main img').length";
    assert_eq!(browser.run(elements).await, json!(0));
    assert_eq!(browser.complaints().await, [""; 0]);
}
