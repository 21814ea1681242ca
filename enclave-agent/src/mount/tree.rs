//! What a workspace may see: datasets and files, each with the sessions that hold it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use certs::ticket::{DatasetOrder, ObjectOrder};
use model::{DatasetId, ObjectId, SessionId};

/// The number of the top directory.
pub const TOP: u64 = 1;

/// A file, for as long as the workspace lives. Its number never names another.
#[derive(Debug)]
pub struct File {
    /// Its inode number.
    pub id: u64,
    /// The directory it is in.
    pub parent: u64,
    /// The dataset that directory stands for.
    pub dataset: DatasetId,
    /// Its name there.
    pub name: String,
    /// The object behind it.
    pub object: ObjectId,
    /// The root that the object's manifest must have.
    pub root: [u8; 32],
    /// Bytes.
    pub size: u64,
}

/// Why nothing is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// There never was such a thing.
    Unknown,
    /// No live session holds it any more.
    Withdrawn,
}

/// What an inode number names.
#[derive(Debug)]
pub enum Node {
    /// A directory.
    Directory(u64),
    /// A file.
    File(Arc<File>),
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its inode number.
    pub id: u64,
    /// Whether it is a file.
    pub is_file: bool,
    /// Its name.
    pub name: String,
}

/// The tree of one workspace.
#[derive(Debug, Default)]
pub struct Tree(RwLock<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    datasets: BTreeMap<DatasetId, Dataset>,
    names: HashMap<u64, DatasetId>,
    files: HashMap<u64, Held>,
}

#[derive(Debug)]
struct Dataset {
    id: u64,
    holders: BTreeSet<SessionId>,
    files: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Held {
    file: Arc<File>,
    holders: BTreeSet<SessionId>,
}

impl Tree {
    /// Adds a session as holder of these datasets.
    pub fn grant(&self, session: &SessionId, datasets: &[DatasetOrder]) {
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for order in datasets {
            let id = inner.dataset(&order.dataset, session);
            for object in &order.objects {
                inner.file(&order.dataset, id, object, session);
            }
        }
    }

    /// Removes a session as holder of anything; answers the files that nobody holds now.
    pub fn revoke(&self, session: &SessionId) -> Vec<Arc<File>> {
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for dataset in inner.datasets.values_mut() {
            dataset.holders.remove(session);
        }
        let mut lost = Vec::new();
        for held in inner.files.values_mut() {
            if held.holders.remove(session) && held.holders.is_empty() {
                lost.push(held.file.clone());
            }
        }
        lost
    }

    /// A file that some live session holds.
    pub fn file(&self, id: u64) -> Result<Arc<File>, Hidden> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let held = inner.files.get(&id).ok_or(Hidden::Unknown)?;
        if held.holders.is_empty() { Err(Hidden::Withdrawn) } else { Ok(held.file.clone()) }
    }

    /// What a number names, if it is to be seen.
    pub fn node(&self, id: u64) -> Result<Node, Hidden> {
        if id == TOP {
            return Ok(Node::Directory(TOP));
        }
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(dataset) = inner.names.get(&id).and_then(|name| inner.datasets.get(name)) {
            return if dataset.holders.is_empty() { Err(Hidden::Withdrawn) } else { Ok(Node::Directory(id)) };
        }
        drop(inner);
        self.file(id).map(Node::File)
    }

    /// What a name in a directory names.
    pub fn lookup(&self, parent: u64, name: &str) -> Result<Node, Hidden> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let id = if parent == TOP {
            let dataset = DatasetId::from_name(name).map_err(|_| Hidden::Unknown)?;
            inner.datasets.get(&dataset).map(|dataset| dataset.id)
        } else {
            let dataset = inner.names.get(&parent).and_then(|name| inner.datasets.get(name));
            dataset.and_then(|dataset| dataset.files.get(name).copied())
        };
        drop(inner);
        self.node(id.ok_or(Hidden::Unknown)?)
    }

    /// The entries of a directory that are to be seen, in the order of their names.
    pub fn list(&self, id: u64) -> Result<Vec<Entry>, Hidden> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if id == TOP {
            let seen = inner.datasets.iter().filter(|(_, dataset)| !dataset.holders.is_empty());
            return Ok(seen
                .map(|(name, dataset)| Entry { id: dataset.id, is_file: false, name: name.name().to_owned() })
                .collect());
        }
        let dataset =
            inner.names.get(&id).and_then(|name| inner.datasets.get(name)).ok_or(Hidden::Unknown)?;
        if dataset.holders.is_empty() {
            return Err(Hidden::Withdrawn);
        }
        let held = |id: &u64| inner.files.get(id).is_some_and(|held| !held.holders.is_empty());
        let seen = dataset.files.iter().filter(|(_, id)| held(id));
        Ok(seen.map(|(name, id)| Entry { id: *id, is_file: true, name: name.clone() }).collect())
    }

    /// A live session that holds a file of this object.
    pub fn session_with(&self, object: &ObjectId) -> Option<SessionId> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let held = inner.files.values().find(|held| held.file.object == *object && !held.holders.is_empty());
        held.and_then(|held| held.holders.first().cloned())
    }
}

impl Inner {
    fn number(&mut self) -> u64 {
        self.last = self.last.max(TOP) + 1;
        self.last
    }

    fn dataset(&mut self, name: &DatasetId, session: &SessionId) -> u64 {
        if let Some(dataset) = self.datasets.get_mut(name) {
            dataset.holders.insert(session.clone());
            return dataset.id;
        }
        let id = self.number();
        let holders = BTreeSet::from([session.clone()]);
        self.datasets.insert(name.clone(), Dataset { id, holders, files: BTreeMap::new() });
        self.names.insert(id, name.clone());
        id
    }

    fn file(&mut self, dataset: &DatasetId, parent: u64, order: &ObjectOrder, session: &SessionId) {
        let known = self.datasets.get(dataset).and_then(|dataset| dataset.files.get(&order.name).copied());
        if let Some(held) = known.and_then(|id| self.files.get_mut(&id))
            && held.file.object == order.object
            && held.file.root == order.manifest_root
        {
            held.holders.insert(session.clone());
            return;
        }
        // Another content under the same name is another file; who has the old one open keeps it.
        let id = self.number();
        let file = Arc::new(File {
            id,
            parent,
            dataset: dataset.clone(),
            name: order.name.clone(),
            object: order.object.clone(),
            root: order.manifest_root,
            size: order.size,
        });
        self.files.insert(id, Held { file, holders: BTreeSet::from([session.clone()]) });
        if let Some(dataset) = self.datasets.get_mut(dataset) {
            dataset.files.insert(order.name.clone(), id);
        }
    }
}

/// Within a workspace a file is its number.
impl PartialEq for File {
    fn eq(&self, other: &File) -> bool {
        self.id == other.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(dataset: &str, files: &[(&str, u8)]) -> DatasetOrder {
        DatasetOrder {
            dataset: DatasetId::from_name(dataset).unwrap(),
            objects: files
                .iter()
                .map(|(name, root)| ObjectOrder {
                    object: ObjectId::from_name(&format!("o{root}")).unwrap(),
                    name: (*name).to_owned(),
                    size: 10,
                    manifest_root: [*root; 32],
                })
                .collect(),
        }
    }

    fn session(name: &str) -> SessionId {
        SessionId::from_name(name).unwrap()
    }

    fn open(tree: &Tree, dataset: &str, name: &str) -> Result<Arc<File>, Hidden> {
        let Node::Directory(parent) = tree.lookup(TOP, dataset)? else { panic!("a dataset is a directory") };
        match tree.lookup(parent, name)? {
            Node::File(file) => Ok(file),
            Node::Directory(_) => panic!("a file is a file"),
        }
    }

    #[test]
    fn a_dataset_is_seen_while_a_session_holds_it() {
        let tree = Tree::default();
        assert_eq!(open(&tree, "one", "a"), Err(Hidden::Unknown));
        tree.grant(&session("s1"), &[order("one", &[("a", 1), ("b", 2)])]);
        tree.grant(&session("s2"), &[order("one", &[("a", 1)]), order("two", &[("c", 3)])]);
        let a = open(&tree, "one", "a").unwrap();
        let lost = tree.revoke(&session("s1"));
        assert_eq!(lost.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(open(&tree, "one", "b"), Err(Hidden::Withdrawn));
        assert!(tree.file(a.id).is_ok());
        assert_eq!(tree.list(a.parent).unwrap().len(), 1);
        assert_eq!(tree.revoke(&session("s2")).len(), 2);
        assert_eq!(tree.file(a.id), Err(Hidden::Withdrawn));
        assert_eq!(open(&tree, "one", "a"), Err(Hidden::Withdrawn));
        assert!(tree.list(TOP).unwrap().is_empty());
        tree.grant(&session("s3"), &[order("one", &[("a", 1)])]);
        assert_eq!(open(&tree, "one", "a").unwrap().id, a.id, "what comes back is the same file");
    }

    #[test]
    fn another_content_under_a_name_is_another_file() {
        let tree = Tree::default();
        tree.grant(&session("s1"), &[order("one", &[("a", 1)])]);
        let old = open(&tree, "one", "a").unwrap();
        tree.grant(&session("s2"), &[order("one", &[("a", 9)])]);
        let new = open(&tree, "one", "a").unwrap();
        assert_ne!(old.id, new.id);
        assert!(tree.file(old.id).is_ok());
        assert_eq!(tree.session_with(&new.object), Some(session("s2")));
        tree.revoke(&session("s1"));
        assert_eq!(tree.file(old.id), Err(Hidden::Withdrawn));
    }

    #[test]
    fn names_that_no_dataset_has_are_unknown() {
        let tree = Tree::default();
        for name in ["", "..", ".", "a/b", "A", "\u{0}"] {
            assert!(matches!(tree.lookup(TOP, name), Err(Hidden::Unknown)), "{name:?}");
        }
        assert!(matches!(tree.lookup(77, "a"), Err(Hidden::Unknown)));
        assert!(matches!(tree.list(77), Err(Hidden::Unknown)));
    }
}
