//! The catalogue over a real store: what is kept, what is refused, what is the same after a restart.

use persona::{Format, SourceText};

use super::*;

mod layers;

const WEB: &str = "name: web\nbase_configuration:\n  cpu: {min: 1, max: 4}\n";
const WEB_SAME: &str = "# the same\nbase_configuration: {cpu: {max: 4, min: 1}}\nname: web\n";
const WEB_LARGER: &str = "name: web\nbase_configuration:\n  cpu: {min: 1, max: 8}\n";

struct Bench {
    dir: tempfile::TempDir,
    catalogue: Catalogue,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let catalogue = open(dir.path());
        Self { dir, catalogue }
    }

    /// Closes the store and opens it again, as a restart does.
    fn reopen(self) -> Self {
        let Self { dir, catalogue } = self;
        drop(catalogue);
        let catalogue = open(dir.path());
        Self { dir, catalogue }
    }

    fn commit<T>(&mut self, change: impl FnOnce(&mut Catalogue, &mut Batch) -> T) -> T {
        let mut batch = Batch::new();
        let answer = change(&mut self.catalogue, &mut batch);
        self.catalogue.store.commit(batch).unwrap();
        answer
    }

    fn import(&self, text: &str) -> Result<Imported, CatalogueError> {
        self.catalogue.import(&SourceText {
            name: "x.yaml",
            text: text.as_bytes(),
            format: Format::Yaml,
            persona_name: None,
        })
    }

    fn add(&mut self, text: &str, expect: Expect) -> Result<Added, CatalogueError> {
        let imported = self.import(text)?;
        let authorship = Authorship {
            author: "root".to_owned(),
            at: Moment(5),
            note: Some("why".to_owned()),
        };
        self.commit(|catalogue, batch| catalogue.add(batch, imported, expect, authorship))
    }

    fn map(
        &mut self,
        tag: &str,
        persona: &str,
        priority: i32,
    ) -> Result<Option<Mapping>, CatalogueError> {
        let persona = persona.parse().unwrap();
        self.commit(|catalogue, batch| {
            catalogue.map(batch, tag.parse().unwrap(), persona, priority)
        })
    }

    fn bind(
        &mut self,
        domain: DomainId,
        persona: &str,
    ) -> Result<Option<ExplicitBinding>, CatalogueError> {
        let binding = ExplicitBinding {
            persona: persona.parse().unwrap(),
            by: "root".to_owned(),
            at: Moment(9),
        };
        self.commit(|catalogue, batch| catalogue.bind(batch, domain, binding))
    }

    fn want(&mut self, domain: DomainId, tags: &[&str], insistence: Insistence) -> Option<Wanted> {
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let desired = match self.catalogue.resolve(domain, &tags) {
            Resolution::Bound(binding) => self.catalogue.desired(&binding).unwrap(),
            _ => Desired::Nothing,
        };
        self.commit(|catalogue, batch| {
            catalogue
                .want(
                    batch,
                    domain,
                    desired,
                    insistence,
                    AgentPresence::Present,
                    Moment(20),
                )
                .unwrap()
        })
    }
}

fn open(dir: &std::path::Path) -> Catalogue {
    let store = Arc::new(Store::open(dir).unwrap());
    assert_eq!(store.set_aside(), None);
    Catalogue::open(store, Moment(1_800_000_000_000)).unwrap()
}

fn name(text: &str) -> PersonaName {
    text.parse().unwrap()
}

fn stored(added: Result<Added, CatalogueError>) -> u32 {
    match added.unwrap() {
        Added::Stored(summary) => summary.number.get(),
        Added::Unchanged(_) => panic!("it was taken as unchanged"),
    }
}

const VM: DomainId = DomainId([7; 16]);

#[test]
fn versions_are_numbered_kept_as_given_and_the_same_meaning_is_no_new_one() {
    let mut bench = Bench::new();
    assert_eq!(stored(bench.add(WEB, Expect::New)), 1);
    assert!(
        matches!(bench.add(WEB_SAME, Expect::Existing).unwrap(), Added::Unchanged(v) if v.number.get() == 1)
    );
    assert_eq!(stored(bench.add(WEB_LARGER, Expect::Existing)), 2);
    assert!(matches!(
        bench.add(WEB, Expect::New),
        Err(CatalogueError::Exists { .. })
    ));
    assert!(matches!(
        bench.add("name: db", Expect::Existing),
        Err(CatalogueError::NotFound { .. })
    ));
    let bench = bench.reopen();
    let history = bench.catalogue.history(&name("web")).unwrap();
    assert_eq!(
        history.iter().map(|v| v.number.get()).collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(
        (
            history[0].author.as_str(),
            history[0].at,
            history[0].note.as_deref()
        ),
        ("root", Moment(5), Some("why"))
    );
    assert_eq!(
        bench.catalogue.current(&name("web")).unwrap().number.get(),
        2
    );
    assert_eq!(
        bench
            .catalogue
            .version(&"web@1".parse().unwrap())
            .unwrap()
            .text,
        WEB
    );
    let (_, persona) = bench.catalogue.persona(&"web".parse().unwrap()).unwrap();
    assert_eq!(persona.base.cpu.unwrap().max, Some(8));
    let error = bench
        .catalogue
        .summary(&"web@3".parse().unwrap())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "persona `web` has no version 3; its newest is 2"
    );
}

#[test]
fn an_older_version_is_made_current_again_and_the_next_number_goes_on() {
    let mut bench = Bench::new();
    stored(bench.add(WEB, Expect::New));
    stored(bench.add(WEB_LARGER, Expect::Existing));
    let one = VersionNumber::new(1).unwrap();
    let set = |bench: &mut Bench| {
        bench
            .commit(|c, batch| c.set_current(batch, &name("web"), one))
            .unwrap()
    };
    assert!(matches!(set(&mut bench), Added::Stored(v) if v.number == one));
    assert!(matches!(set(&mut bench), Added::Unchanged(_)));
    let mut bench = bench.reopen();
    assert_eq!(bench.catalogue.current(&name("web")).unwrap().number, one);
    assert_eq!(stored(bench.add(WEB_LARGER, Expect::Existing)), 3);
}

#[test]
fn a_persona_in_use_is_deleted_only_by_force_and_its_numbers_never_come_again() {
    let mut bench = Bench::new();
    stored(bench.add(WEB, Expect::New));
    bench.map("front", "web", 1).unwrap();
    bench.bind(VM, "web@1").unwrap();
    bench.want(VM, &[], Insistence::Keep);
    let delete =
        |bench: &mut Bench, how| bench.commit(|c, batch| c.delete(batch, &name("web"), how));
    let error = delete(&mut bench, Deletion::IfUnused).unwrap_err();
    assert_eq!(
        error.to_string(),
        "persona `web` is in use by domain 07070707-0707-0707-0707-070707070707, tag front; \
         free them of it first, or force it"
    );
    delete(&mut bench, Deletion::Forced).unwrap();
    let mut bench = bench.reopen();
    assert_eq!(bench.catalogue.personas().count(), 0);
    assert!(bench.catalogue.mappings().is_empty());
    assert_eq!(bench.catalogue.explicit(VM), None);
    let left = |bench: &Bench| bench.catalogue.store.all::<Version>().unwrap().len();
    assert_eq!(
        left(&bench),
        1,
        "it is in force until its domain is resolved anew"
    );
    bench.want(VM, &[], Insistence::Keep);
    bench.commit(|c, batch| c.forget(batch, VM));
    let mut bench = bench.reopen();
    assert_eq!(left(&bench), 0);
    assert!(matches!(
        delete(&mut bench, Deletion::Forced),
        Err(CatalogueError::NotFound { .. })
    ));
    assert_eq!(stored(bench.add(WEB, Expect::New)), 2);
    let bench = bench.reopen();
    assert_eq!(bench.catalogue.history(&name("web")).unwrap().len(), 1);
}

#[test]
fn at_most_one_persona_is_the_default() {
    let mut bench = Bench::new();
    stored(bench.add("name: base\ndefault_persona: true", Expect::New));
    let second = bench.add("name: other\ndefault_persona: true", Expect::New);
    assert!(matches!(second, Err(CatalogueError::SecondDefault { .. })));
    let mut bench = bench.reopen();
    assert_eq!(bench.catalogue.default_persona(), Some(&name("base")));
    let binding = bench.catalogue.resolve(VM, &["unmapped".to_owned()]);
    assert!(
        matches!(
            binding,
            Resolution::Bound(Binding {
                origin: Origin::Default,
                ..
            })
        ),
        "{binding:?}"
    );
    stored(bench.add("name: base", Expect::Existing));
    assert_eq!(bench.catalogue.default_persona(), None);
    stored(bench.add("name: other\ndefault_persona: true", Expect::New));
    let first = VersionNumber::new(1).unwrap();
    let back = bench.commit(|c, batch| c.set_current(batch, &name("base"), first));
    assert!(matches!(back, Err(CatalogueError::SecondDefault { .. })));
}

#[test]
fn mappings_and_bindings_need_what_they_name_and_survive() {
    let mut bench = Bench::new();
    stored(bench.add(WEB, Expect::New));
    stored(bench.add("name: db", Expect::New));
    assert!(matches!(
        bench.map("x", "none", 0),
        Err(CatalogueError::NotFound { .. })
    ));
    assert!(matches!(
        bench.map("x", "web@2", 0),
        Err(CatalogueError::NoVersion { .. })
    ));
    assert!(matches!(
        bench.bind(VM, "none"),
        Err(CatalogueError::NotFound { .. })
    ));
    assert_eq!(bench.map("front", "web", 3).unwrap(), None);
    assert_eq!(
        bench
            .map("front", "db@1", 4)
            .unwrap()
            .unwrap()
            .persona()
            .unwrap()
            .to_string(),
        "web"
    );
    bench.map("front-2", "web", 4).unwrap();
    bench.bind(VM, "web@1").unwrap();
    let mut bench = bench.reopen();
    let tags = ["front".to_owned(), "front-2".to_owned()];
    let resolution = bench.catalogue.resolve(VM, &tags);
    assert!(matches!(
        resolution,
        Resolution::Bound(Binding {
            origin: Origin::Explicit,
            ..
        })
    ));
    assert_eq!(
        bench
            .commit(|c, batch| c.unbind(batch, VM))
            .unwrap()
            .persona
            .to_string(),
        "web@1"
    );
    assert_eq!(bench.commit(|c, batch| c.unbind(batch, VM)), None);
    let Resolution::Conflict(conflict) = bench.catalogue.resolve(VM, &tags) else {
        panic!("no conflict")
    };
    assert_eq!(
        conflict.to_string(),
        "tags of priority 4 want different personas: `front` wants db@1, `front-2` wants web; \
         give one of them a higher priority"
    );
    let front: Tag = "front".parse().unwrap();
    bench.commit(|c, batch| c.unmap(batch, &front)).unwrap();
    assert!(matches!(
        bench.commit(|c, batch| c.unmap(batch, &front)),
        Err(CatalogueError::NotMapped { .. })
    ));
    let bench = bench.reopen();
    assert!(
        matches!(bench.catalogue.resolve(VM, &tags), Resolution::Bound(b) if b.persona.to_string() == "web")
    );
}

#[test]
fn an_activation_starts_once_for_what_is_desired_and_anew_for_what_is_not() {
    let mut bench = Bench::new();
    assert_eq!(bench.want(VM, &[], Insistence::Keep), None);
    stored(bench.add(WEB, Expect::New));
    bench.map("front", "web", 1).unwrap();
    let Some(Wanted::Started(first)) = bench.want(VM, &["front"], Insistence::Keep) else {
        panic!("not started")
    };
    assert!(first.is_due());
    let done = ActivationEvent::Acknowledged(first.generation);
    bench
        .commit(|c, batch| c.advance(batch, VM, done, Moment(30)))
        .unwrap();
    // The same persona for another reason asks nothing of the guest.
    bench.bind(VM, "web").unwrap();
    let Some(Wanted::Unchanged(same)) = bench.want(VM, &["front"], Insistence::Keep) else {
        panic!("started anew")
    };
    assert_eq!(
        (same.generation, &same.state),
        (
            first.generation,
            &ActivationState::Active { since: Moment(30) }
        )
    );
    let mut bench = bench.reopen();
    assert_eq!(bench.catalogue.activation(VM), Some(&same));
    let Some(Wanted::Started(again)) = bench.want(VM, &["front"], Insistence::Again) else {
        panic!("not started")
    };
    stored(bench.add(WEB_LARGER, Expect::Existing));
    let Some(Wanted::Started(newer)) = bench.want(VM, &["front"], Insistence::Keep) else {
        panic!("not started")
    };
    assert!(first.generation < again.generation && again.generation < newer.generation);
    let stale = ActivationEvent::Acknowledged(again.generation);
    assert_eq!(
        bench
            .commit(|c, batch| c.advance(batch, VM, stale, Moment(40)))
            .unwrap(),
        Transition::Stale
    );
    bench.commit(|c, batch| c.forget(batch, VM));
    let bench = bench.reopen();
    assert_eq!(bench.catalogue.activation(VM), None);
    assert_eq!(bench.catalogue.explicit(VM), None);
}

#[test]
fn a_stored_version_that_no_longer_loads_harms_itself_alone() {
    let mut bench = Bench::new();
    stored(bench.add(WEB, Expect::New));
    stored(bench.add("name: db", Expect::New));
    let mut version = bench.catalogue.version(&"db".parse().unwrap()).unwrap();
    version.text = "name: db\nkey_of_old: 1\n".to_owned();
    bench
        .catalogue
        .store
        .put("db/0000000001", &version)
        .unwrap();
    let mut bench = bench.reopen();
    assert!(matches!(
        bench.catalogue.persona(&"db".parse().unwrap()),
        Err(CatalogueError::NoLongerValid { .. })
    ));
    assert!(bench.catalogue.persona(&"web".parse().unwrap()).is_ok());
    assert_eq!(
        stored(bench.add("name: db\ndescription: mended", Expect::Existing)),
        2
    );
}
