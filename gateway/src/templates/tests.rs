//! What is stored opens only in its place; what is marked is recognised.

use minutiae::{extract, synth::Finger};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::journal::{JournalConfig, now};

async fn journal(folder: &TempDir) -> Journal {
    let config = JournalConfig::new(folder.path().join("j.redb"), "site".parse().unwrap());
    Journal::open(config).unwrap().0
}

fn key(folder: &TempDir, name: &str) -> Arc<MasterKey> {
    Arc::new(MasterKey::load_or_create(&folder.path().join(name)).unwrap())
}

fn new(user: &str, id: &str, position: Option<&str>, template: &[u8]) -> NewTemplate {
    let metadata = position.map(|position| json!({ "fingerPosition": position }));
    NewTemplate {
        template_id: id.into(),
        user_id: user.parse().unwrap(),
        metadata: metadata.and_then(|m| m.as_object().cloned()).unwrap_or_default(),
        quality: 80,
        template: template.to_vec().into(),
        enrolled_at: now(),
    }
}

async fn store(templates: &Templates, new: &NewTemplate) -> Change {
    let mut changing = templates.begin().await;
    let batch = changing.add(Batch::new(), new).unwrap();
    templates.inner.journal.commit(batch).await.unwrap();
    changing.committed()
}

fn ids(templates: &Templates, user: &str) -> Vec<String> {
    let infos = templates.infos(&user.parse().unwrap());
    infos.into_iter().map(|info| info.template_id).collect()
}

#[tokio::test]
async fn the_same_finger_is_replaced_and_another_one_added() {
    let folder = TempDir::new().unwrap();
    let (journal, key) = (journal(&folder).await, key(&folder, "k"));
    let templates = Templates::open(journal.clone(), Arc::clone(&key)).unwrap();
    store(&templates, &new("anna", "t1", Some("right_index"), b"one")).await;
    store(&templates, &new("anna", "t2", Some("left_index"), b"two")).await;
    let change = store(&templates, &new("anna", "t3", Some("right_index"), b"three")).await;
    assert_eq!((change.removed.len(), change.added.len()), (1, 1));
    store(&templates, &new("anna-2", "t4", None, b"four")).await;
    assert_eq!(ids(&templates, "anna"), ["t2", "t3"]);
    assert_eq!(ids(&templates, "anna-2"), ["t4"]);

    let again = Templates::open(journal.clone(), key).unwrap();
    assert_eq!(again.count(), 3);
    let stored = again.of_user(&"anna".parse().unwrap()).unwrap();
    let bytes: Vec<&[u8]> = stored.iter().map(|stored| &*stored.template).collect();
    assert_eq!(bytes, [&b"two"[..], b"three"]);
    journal.close().await.unwrap();
}

#[tokio::test]
async fn a_change_that_is_not_committed_has_not_happened() {
    let folder = TempDir::new().unwrap();
    let (journal, key) = (journal(&folder).await, key(&folder, "k"));
    let templates = Templates::open(journal.clone(), key).unwrap();
    store(&templates, &new("anna", "t1", None, b"one")).await;
    let mut changing = templates.begin().await;
    let _batch = changing.add(Batch::new(), &new("anna", "t2", None, b"two")).unwrap();
    drop(changing);
    assert_eq!(ids(&templates, "anna"), ["t1"]);
    journal.close().await.unwrap();
}

#[tokio::test]
async fn rows_are_sealed_for_their_user_and_key() {
    let folder = TempDir::new().unwrap();
    let (journal, own) = (journal(&folder).await, key(&folder, "k"));
    let templates = Templates::open(journal.clone(), Arc::clone(&own)).unwrap();
    let secret = b"a template that nobody reads";
    store(&templates, &new("anna", "t1", None, secret)).await;
    let (row_key, row) = journal.scan(Table::Templates, b"").unwrap().remove(0);
    assert!(!row.windows(8).any(|window| secret.windows(8).any(|part| part == window)));
    let stolen = b"mallory\0t1".to_vec();
    let batch = Batch::new().put(Table::Templates, stolen, row).delete(Table::Templates, row_key);
    journal.commit(batch).await.unwrap();
    let moved = Templates::open(journal.clone(), own).unwrap();
    assert_eq!((moved.count(), moved.unreadable()), (0, 1));
    journal.close().await.unwrap();
}

#[tokio::test]
async fn marks_are_recognised_after_a_restart_and_nothing_else_is() {
    let folder = TempDir::new().unwrap();
    let (journal, own, other) = (journal(&folder).await, key(&folder, "k"), key(&folder, "other"));
    let marks = Marks::open(&journal, own.scan_mark_key()).unwrap();
    let image = Finger::named("anna").impression(1);
    let template = extract(&image).unwrap().template;
    let third = extract(&Finger::named("anna").impression(3)).unwrap().template;
    let mut vendors = vec![0; 40];
    vendors[2..6].copy_from_slice(b"SS21");
    vendors[9] = 40;
    for plain in [template.write_iso(), third.write_ansi(), vendors] {
        let plain = TemplateBytes::from(plain);
        assert_eq!(marks.provenance(&plain), Provenance::Reference);
        let handout = marks.mark(&plain);
        assert_eq!(marks.unmarked(&handout), plain);
        let batch = marks.remember(Batch::new(), &handout, now());
        journal.commit(batch).await.unwrap();
        let again = Marks::open(&journal, own.scan_mark_key()).unwrap();
        assert!(marks.is_scan_output(&handout) && again.is_scan_output(&handout));
        let mut longer = handout.to_vec();
        longer.push(0);
        assert!(again.is_scan_output(&longer), "bytes after its end don't make it another one");
    }
    // Anna's scan, written again by a library that knows nothing of the mark.
    for rewritten in [template.write_iso(), template.write_ansi()] {
        assert_eq!(marks.provenance(&rewritten), Provenance::Scan, "the mark was stripped");
    }
    let another = extract(&Finger::named("anna").impression(2)).unwrap().template;
    assert_eq!(marks.provenance(&another.write_iso()), Provenance::Reference);
    let elsewhere = Marks::open(&journal, other.scan_mark_key()).unwrap();
    let marked = marks.mark(&template.write_iso().into());
    assert_eq!(elsewhere.provenance(&marked), Provenance::Foreign);
    let read = minutiae::Template::read(&marked).unwrap();
    assert_eq!(read.views()[0].minutiae(), template.views()[0].minutiae(), "the same finger");
    assert_eq!(marks.provenance(b"no template at all"), Provenance::Reference);
    journal.close().await.unwrap();
}
