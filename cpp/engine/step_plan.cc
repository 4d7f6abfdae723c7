#include "engine/step_plan.h"

namespace cupola {

namespace {

void Clear(StepInput* input) {
  for (std::vector<int32_t>* array :
       {&input->ids, &input->positions, &input->slots, &input->q_indptr, &input->page_indptr,
        &input->page_ids, &input->kv_len, &input->out_rows, &input->window_slots,
        &input->window_page_ids}) {
    array->clear();
  }
}

void AppendSequence(const PlannedSequence& sequence, int32_t page_size, StepInput* input) {
  const Request& request = *sequence.request;
  const int32_t end = request.num_computed + sequence.num_rows;
  for (int32_t position = request.num_computed; position < end; ++position) {
    const int32_t page = request.pages[position / page_size];
    input->ids.push_back(request.tokens[position]);
    input->positions.push_back(position);
    input->slots.push_back(page * page_size + position % page_size);
  }
  // Pages beyond `end` may be reserved already; the kernels need only see those in use.
  const int32_t num_pages = (end + page_size - 1) / page_size;
  input->page_ids.insert(input->page_ids.end(), request.pages.begin(),
                         request.pages.begin() + num_pages);
  input->q_indptr.push_back(static_cast<int32_t>(input->ids.size()));
  input->page_indptr.push_back(static_cast<int32_t>(input->page_ids.size()));
  input->kv_len.push_back(end);
  const int32_t num_ids = static_cast<int32_t>(input->ids.size());
  const int32_t first_scored = num_ids - sequence.num_rows + sequence.first_scored;
  for (int32_t i = 0; i < sequence.num_scored; ++i) input->out_rows.push_back(first_scored + i);
  if (sequence.samples) input->out_rows.push_back(num_ids - 1);
}

// What AppendSequence says of pages, for layers with a window.
void AppendWindow(const PlannedSequence& sequence, int32_t page_size, const WindowPlaces& window,
                  StepInput* input) {
  const Request& request = *sequence.request;
  const int32_t end = request.num_computed + sequence.num_rows;
  for (int32_t position = request.num_computed; position < end; ++position) {
    const int32_t place = window.place(request.pages[position / page_size]);
    input->window_slots.push_back(place * page_size + position % page_size);
  }
  const int32_t num_pages = (end + page_size - 1) / page_size;
  for (int32_t i = 0; i < num_pages; ++i) {
    const bool seen = request.window_begin <= i;
    input->window_page_ids.push_back(seen ? window.place(request.pages[i]) : 0);
  }
}

}  // namespace

void BuildStepInput(const StepPlan& plan, int32_t page_size, const WindowPlaces& window,
                    StepInput* input) {
  Clear(input);
  input->q_indptr.push_back(0);
  input->page_indptr.push_back(0);
  for (const PlannedSequence& sequence : plan.sequences) {
    AppendSequence(sequence, page_size, input);
    if (window.num_total() > 0) AppendWindow(sequence, page_size, window, input);
  }
  // A forward always yields one row at least; when nobody wants one, its result is not looked at.
  if (input->out_rows.empty()) {
    input->out_rows.push_back(static_cast<int32_t>(input->ids.size()) - 1);
  }
}

}  // namespace cupola
