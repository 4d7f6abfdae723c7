// Why a row of logits gave no token, in words.
#ifndef CUPOLA_ENGINE_SAMPLE_ERRORS_H_
#define CUPOLA_ENGINE_SAMPLE_ERRORS_H_

namespace cupola {

constexpr char kNotFinite[] = "the model returned logits that are not finite";
constexpr char kNothingAllowed[] =
    "no token is allowed at this place by what the request asks of its output";

}  // namespace cupola

#endif  // CUPOLA_ENGINE_SAMPLE_ERRORS_H_
