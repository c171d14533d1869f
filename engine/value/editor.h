// Editor: one run of EditValue. Internal to engine/value.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "engine/value/edit.h"
#include "engine/value/splice.h"
#include "engine/value/value.h"

namespace statehouse::internal {

// Walks the path, remembering what it enters, and replaces what the edit says. A stack object of
// EditValue; borrows everything. The methods that return a Status have written `*next` when they
// return OK and nothing otherwise; `result()` is only of use after OK.
class Editor final {
 public:
  Editor(std::string_view current, std::span<const PathStep> path, const Edit& edit,
         std::string* next)
      : current_(current), path_(path), edit_(edit), next_(next), splice_(current) {}

  Status Run();
  const EditResult& result() const { return result_; }

 private:
  // editor.cc: on the value at the path's end.
  Status Walk(std::span<const PathStep> path);
  Status Set();
  Status SetDefault();
  Status Delete();
  Status PutMissing(std::string_view wire);
  Status NotFound() const;

  // editor_number.cc
  Status Increment();
  Status WriteNumber(const Number& before);

  // editor_contents.cc: inside the list, map, string or bytes at the path's end.
  Status EditContents();
  Status CheckOperand() const;
  Status MakeMissing();
  Status EditList(const ValueView& list);
  Status Insert(std::string_view payload, int64_t count, int64_t start);
  Status SetSlice(std::string_view payload, int64_t count, int64_t start, int64_t stop);
  Status RemoveEqual(std::string_view payload, int64_t count);
  Status Pop(const ValueView& container);
  Status Merge(std::string_view payload);
  Status Clear(const ValueView& container);
  Status AppendBytes(const ValueView& container);
  Status WrongKind(const ValueView& found, const char* needed) const;

  // Takes the item of a list or map away whose field holds `bytes`.
  Status RemoveItem(std::string_view bytes, std::string_view value);

  const std::string_view current_;
  const std::span<const PathStep> path_;
  const Edit& edit_;
  std::string* const next_;

  Splice splice_;
  EditResult result_;
  // After Walk: the value that was reached, or is_missing_ and how many steps lead somewhere.
  std::string_view value_;
  bool is_missing_ = false;
  size_t steps_found_ = 0;
};

}  // namespace statehouse::internal
