//! People and the keys of their devices.

use model::{PersonId, RoleId, Timestamp};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder};

use super::{Store, bump, insert, update};
use crate::entity::{device_key, person};
use crate::error::StoreError;
use crate::records::{DeviceKey, DeviceKeyState, Person, PersonState};
use crate::text;

impl Store {
    /// Records a person. A state other than active is recorded as such.
    pub async fn create_person(&self, person: &Person) -> Result<u64, StoreError> {
        let tx = self.write().await?;
        insert(&tx, person.id.as_str(), person_row(person)?).await?;
        let epoch = bump(&tx).await?;
        tx.commit().await?;
        Ok(epoch)
    }

    /// A person, if on record.
    pub async fn person(&self, id: &PersonId) -> Result<Option<Person>, StoreError> {
        find(&self.readers, id).await
    }

    /// Everybody, by identifier.
    pub async fn people(&self) -> Result<Vec<Person>, StoreError> {
        let rows = person::Entity::find().order_by_asc(person::Column::Id).all(&self.readers).await?;
        rows.into_iter().map(person_record).collect()
    }

    /// Replaces a person's roles in the programme; the policy epoch after it.
    pub async fn set_roles(&self, id: &PersonId, roles: &[RoleId]) -> Result<u64, StoreError> {
        self.change_person(id, |person| Ok(Person { roles: roles.to_vec(), ..person })).await
    }

    /// Locks a person out; the policy epoch after it.
    pub async fn lock_person(
        &self,
        id: &PersonId,
        at: Timestamp,
        by: &PersonId,
        reason: &str,
    ) -> Result<u64, StoreError> {
        self.change_person(id, |person| {
            let state = person.state.lock(at, by.clone(), reason.to_owned());
            let state = state.map_err(|source| StoreError::Transition { what: id.to_string(), source })?;
            Ok(Person { state, ..person })
        })
        .await
    }

    /// Lets a locked person in again; the policy epoch after it.
    pub async fn unlock_person(&self, id: &PersonId) -> Result<u64, StoreError> {
        self.change_person(id, |person| {
            let state = person.state.unlock();
            let state = state.map_err(|source| StoreError::Transition { what: id.to_string(), source })?;
            Ok(Person { state, ..person })
        })
        .await
    }

    /// Records the key of a person's device. A key belongs to one person, for ever.
    pub async fn add_device_key(&self, key: &DeviceKey) -> Result<(), StoreError> {
        let tx = self.write().await?;
        insert(&tx, "this key", key_row(key)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The keys of a person's devices, retired ones among them, oldest first.
    pub async fn device_keys(&self, person: &PersonId) -> Result<Vec<DeviceKey>, StoreError> {
        let rows = device_key::Entity::find()
            .filter(device_key::Column::Person.eq(person.as_str()))
            .order_by_asc(device_key::Column::EnrolledAt)
            .order_by_asc(device_key::Column::PublicKey)
            .all(&self.readers)
            .await?;
        rows.into_iter().map(key_record).collect()
    }

    /// The record of a key, if there is one.
    pub async fn device_key(&self, public_key: &str) -> Result<Option<DeviceKey>, StoreError> {
        let row = device_key::Entity::find_by_id(public_key).one(&self.readers).await?;
        row.map(key_record).transpose()
    }

    /// Withdraws the key of a device, for good.
    pub async fn retire_device_key(&self, public_key: &str, at: Timestamp) -> Result<(), StoreError> {
        let tx = self.write().await?;
        let row = device_key::Entity::find_by_id(public_key).one(&tx).await?;
        let key = key_record(row.ok_or_else(|| StoreError::NotFound("such key".to_owned()))?)?;
        let state = key.state.retire(at);
        let state = state.map_err(|source| StoreError::Transition { what: "this key".to_owned(), source })?;
        update(&tx, "this key", key_row(&DeviceKey { state, ..key })).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn change_person(
        &self,
        id: &PersonId,
        change: impl FnOnce(Person) -> Result<Person, StoreError>,
    ) -> Result<u64, StoreError> {
        let tx = self.write().await?;
        let person = find(&tx, id).await?.ok_or_else(|| StoreError::NotFound(id.to_string()))?;
        update(&tx, id.as_str(), person_row(&change(person)?)?).await?;
        let epoch = bump(&tx).await?;
        tx.commit().await?;
        Ok(epoch)
    }
}

async fn find(db: &impl ConnectionTrait, id: &PersonId) -> Result<Option<Person>, StoreError> {
    let row = person::Entity::find_by_id(id.as_str()).one(db).await?;
    row.map(person_record).transpose()
}

fn person_row(person: &Person) -> Result<person::Model, StoreError> {
    let (locked_at, locked_by, locked_reason) = match &person.state {
        PersonState::Active => (None, None, None),
        PersonState::Locked { at, by, reason } => {
            (Some(at.as_millis()), Some(by.to_string()), Some(reason.clone()))
        }
    };
    Ok(person::Model {
        id: person.id.to_string(),
        display_name: person.display_name.clone(),
        roles: text::json(&person.roles)?,
        recorded_at: person.recorded_at.as_millis(),
        locked_at,
        locked_by,
        locked_reason,
    })
}

fn person_record(row: person::Model) -> Result<Person, StoreError> {
    let what = row.id.as_str();
    let state = match row.locked_at {
        None => PersonState::Active,
        Some(at) => PersonState::Locked {
            at: text::at(at),
            by: text::id(what, &text::required(what, row.locked_by)?)?,
            reason: text::required(what, row.locked_reason)?,
        },
    };
    Ok(Person {
        id: text::id(what, &row.id)?,
        roles: text::from_json(what, &row.roles)?,
        recorded_at: text::at(row.recorded_at),
        display_name: row.display_name,
        state,
    })
}

fn key_row(key: &DeviceKey) -> device_key::Model {
    let retired_at = match key.state {
        DeviceKeyState::Active => None,
        DeviceKeyState::Retired { at } => Some(at.as_millis()),
    };
    device_key::Model {
        public_key: key.public_key.clone(),
        person: key.person.to_string(),
        enrolled_at: key.enrolled_at.as_millis(),
        retired_at,
    }
}

fn key_record(row: device_key::Model) -> Result<DeviceKey, StoreError> {
    let state = match row.retired_at {
        None => DeviceKeyState::Active,
        Some(at) => DeviceKeyState::Retired { at: text::at(at) },
    };
    Ok(DeviceKey {
        person: text::id("a device key", &row.person)?,
        public_key: row.public_key,
        enrolled_at: text::at(row.enrolled_at),
        state,
    })
}
