// The verbs of dict.proto, in the manner of verbs.h.
#pragma once

#include <memory>
#include <string_view>

#include "service/api/verbs.h"
#include "statehouse/v1/dict.pb.h"

namespace statehouse {

// The dict that `name` or "#<index>" stands for, if the caller may do `verb` to it; as ResolveArea.
StatusOr<std::shared_ptr<ServedDict>> ResolveDict(const VerbContext& context, std::string_view name,
                                                  Verb verb);

Status CreateDict(const VerbContext& context, const v1::CreateDictRequest& request,
                  v1::CreateDictResponse* response);
Status DescribeDict(const VerbContext& context, const v1::DescribeDictRequest& request,
                    v1::DescribeDictResponse* response);
Status ListDicts(const VerbContext& context, const v1::ListDictsRequest& request,
                 v1::ListDictsResponse* response);
Status DeleteDict(const VerbContext& context, const v1::DeleteDictRequest& request,
                  v1::DeleteDictResponse* response);
Status ClearDict(const VerbContext& context, const v1::ClearDictRequest& request,
                 v1::ClearDictResponse* response);

Status GetEntry(const VerbContext& context, const v1::GetEntryRequest& request,
                v1::GetEntryResponse* response);
Status SetEntry(const VerbContext& context, const v1::SetEntryRequest& request,
                v1::SetEntryResponse* response);
Status DeleteEntry(const VerbContext& context, const v1::DeleteEntryRequest& request,
                   v1::DeleteEntryResponse* response);
Status IncrementEntry(const VerbContext& context, const v1::IncrementEntryRequest& request,
                      v1::IncrementEntryResponse* response);
Status EditEntry(const VerbContext& context, const v1::EditEntryRequest& request,
                 v1::EditEntryResponse* response);
Status TouchEntry(const VerbContext& context, const v1::TouchEntryRequest& request,
                  v1::TouchEntryResponse* response);

Status GetEntries(const VerbContext& context, const v1::GetEntriesRequest& request,
                  v1::GetEntriesResponse* response);
Status SetEntries(const VerbContext& context, const v1::SetEntriesRequest& request,
                  v1::SetEntriesResponse* response);
Status DeletePrefix(const VerbContext& context, const v1::DeletePrefixRequest& request,
                    v1::DeletePrefixResponse* response);
Status ScanEntries(const VerbContext& context, const v1::ScanEntriesRequest& request,
                   v1::ScanEntriesResponse* response);
Status TransactDict(const VerbContext& context, const v1::TransactDictRequest& request,
                    v1::TransactDictResponse* response);

}  // namespace statehouse
