#include "memory/page_set.h"

#include <algorithm>

#include "base/check.h"

namespace romulus::memory {
namespace {

uint64_t Bit(Gfn gfn) { return 1ull << (gfn.value() % 64); }

}  // namespace

PageSet::PageSet(Gfn gfn_end) : gfn_end_(gfn_end), bits_((gfn_end.value() + 63) / 64) {}

bool PageSet::Insert(Gfn gfn) {
  ROMULUS_CHECK(gfn < gfn_end_);
  uint64_t& word = bits_[gfn.value() / 64];
  if ((word & Bit(gfn)) != 0) return false;
  word |= Bit(gfn);
  pages_.push_back(gfn);
  return true;
}

void PageSet::InsertAll(const PageSet& other) {
  for (Gfn gfn : other.pages_) Insert(gfn);
}

bool PageSet::Contains(Gfn gfn) const {
  return gfn < gfn_end_ && (bits_[gfn.value() / 64] & Bit(gfn)) != 0;
}

bool PageSet::Erase(Gfn gfn) {
  if (!Contains(gfn)) return false;
  bits_[gfn.value() / 64] &= ~Bit(gfn);
  pages_.erase(std::find(pages_.begin(), pages_.end(), gfn));
  return true;
}

void PageSet::Clear() {
  for (Gfn gfn : pages_) bits_[gfn.value() / 64] = 0;
  pages_.clear();
}

void PageSet::Sort() { std::sort(pages_.begin(), pages_.end()); }

}  // namespace romulus::memory
