#include "engine/base/word.h"
#include "service/api/verbs.h"
#include "service/api/words.h"

namespace statehouse {

Status LoadWord(const VerbContext& context, const v1::LoadWordRequest& request,
                v1::LoadWordResponse* response) {
  SH_ASSIGN_OR_RETURN(const auto served, ResolveArea(context, request.name(), Verb::kRead));
  SH_ASSIGN_OR_RETURN(const WordType type, ToWordType(request.type()));
  uint64_t bits = 0;
  SH_RETURN_IF_ERROR(
      served->area().Load(type, request.pos(), &bits, context.lane.operation_timeout_ns));
  FromBits(type, bits, response->mutable_value());
  return Status();
}

Status StoreWord(const VerbContext& context, const v1::StoreWordRequest& request,
                 v1::StoreWordResponse* response) {
  SH_ASSIGN_OR_RETURN(const auto served, ResolveArea(context, request.name(), Verb::kWrite));
  SH_ASSIGN_OR_RETURN(const WordType type, ToWordType(request.type()));
  SH_ASSIGN_OR_RETURN(const uint64_t bits, ToBits(type, request.value(), "value"));
  return served->area().Store(context.lane, type, request.pos(), bits, request.fence());
}

Status AddWord(const VerbContext& context, const v1::AddWordRequest& request,
               v1::AddWordResponse* response) {
  SH_ASSIGN_OR_RETURN(const auto served, ResolveArea(context, request.name(), Verb::kWrite));
  SH_ASSIGN_OR_RETURN(const WordType type, ToWordType(request.type()));
  const uint64_t delta = request.has_delta() ? static_cast<uint64_t>(request.delta()) : 1;
  uint64_t bits = 0;
  SH_RETURN_IF_ERROR(served->area().Add(context.lane, type, request.pos(), delta & WordMask(type),
                                        &bits, request.fence()));
  FromBits(type, bits, response->mutable_value());
  return Status();
}

Status CompareExchangeWord(const VerbContext& context,
                           const v1::CompareExchangeWordRequest& request,
                           v1::CompareExchangeWordResponse* response) {
  SH_ASSIGN_OR_RETURN(const auto served, ResolveArea(context, request.name(), Verb::kWrite));
  SH_ASSIGN_OR_RETURN(const WordType type, ToWordType(request.type()));
  SH_ASSIGN_OR_RETURN(const uint64_t expected, ToBits(type, request.expected(), "expected"));
  SH_ASSIGN_OR_RETURN(const uint64_t desired, ToBits(type, request.desired(), "desired"));
  CompareExchangeResult result;
  SH_RETURN_IF_ERROR(served->area().CompareExchange(context.lane, type, request.pos(), expected,
                                                    desired, &result, request.fence()));
  response->set_exchanged(result.exchanged);
  FromBits(type, result.found, response->mutable_found());
  return Status();
}

Status BitwiseWord(const VerbContext& context, const v1::BitwiseWordRequest& request,
                   v1::BitwiseWordResponse* response) {
  SH_ASSIGN_OR_RETURN(const auto served, ResolveArea(context, request.name(), Verb::kWrite));
  SH_ASSIGN_OR_RETURN(const WordType type, ToWordType(request.type()));
  if (!v1::BitwiseOperator_IsValid(request.operator_()) ||
      request.operator_() == v1::BITWISE_OPERATOR_UNSPECIFIED) {
    return Status(Reason::kInvalidArgument,
                  "field operator: " + std::to_string(static_cast<int>(request.operator_())) +
                      " is no operator; use AND, OR or XOR");
  }
  SH_ASSIGN_OR_RETURN(const uint64_t operand, ToBits(type, request.operand(), "operand"));
  uint64_t bits = 0;
  SH_RETURN_IF_ERROR(served->area().Bitwise(context.lane,
                                            static_cast<BitwiseOperator>(request.operator_()), type,
                                            request.pos(), operand, &bits, request.fence()));
  FromBits(type, bits, response->mutable_value());
  return Status();
}

}  // namespace statehouse
