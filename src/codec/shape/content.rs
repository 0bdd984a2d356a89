//! The parts of a place of a type: elements, fields, entries, a variant.

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::recorder::{Kind, Recorder, Stopped};

/// The elements of a list, a tuple or a struct, or the key and the value of a map.
pub(super) struct Content<'s> {
    at: Recorder<'s>,
    next: usize,
    count: usize,
}

impl<'s> Content<'s> {
    pub(super) fn new(at: Recorder<'s>, count: usize) -> Self {
        Self { at, next: 0, count }
    }

    fn read<'de, T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Stopped> {
        let place = self.at.child(self.next)?;
        self.next += 1;
        place.hand(|place| seed.deserialize(place))
    }
}

impl<'de> SeqAccess<'de> for Content<'_> {
    type Error = Stopped;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Stopped> {
        match self.next < self.count {
            true => self.read(seed).map(Some),
            false => Ok(None),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.count - self.next)
    }
}

impl<'de> MapAccess<'de> for Content<'_> {
    type Error = Stopped;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Stopped> {
        match self.next < self.count {
            true => self.read(seed).map(Some),
            false => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stopped> {
        self.read(seed)
    }
}

/// One variant of an enum.
pub(super) struct Variant<'s> {
    pub(super) place: usize,
    pub(super) at: Recorder<'s>,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Stopped;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Stopped> {
        let number = u32::try_from(self.place).map_err(|_| Stopped)?;
        let identifier: serde::de::value::U32Deserializer<Stopped> = number.into_deserializer();
        Ok((seed.deserialize(identifier)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Stopped;

    fn unit_variant(self) -> Result<(), Stopped> {
        self.at.leaf("()").map(drop)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Stopped> {
        self.at.note(Kind::Tuple(""), 1)?;
        let content = self.at.child(0)?;
        Ok(self
            .at
            .end(content.hand(|content| seed.deserialize(content))?))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stopped> {
        self.at.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        self.at.note(Kind::Struct("", fields), fields.len())?;
        let content = Content::new(self.at, fields.len());
        Ok(self.at.end(visitor.visit_seq(content)?))
    }
}
