"""Replies as the families' models write them, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass

SCHEMAS = {
    "get_weather": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
    "now": {"type": "object", "properties": {}},
}


@dataclass(frozen=True)
class Case:
    """A reply. `hidden` are special tokens of such a model's tokenizer; `calls` are (name, arguments as JSON)."""

    calls_format: str
    text: str
    calls: tuple[tuple[str, str], ...] = ()
    content: str = ""
    reasoning: str = ""
    reasoning_format: str | None = None
    hidden: tuple[str, ...] = ()
    inside: bool = False


PARIS = ("get_weather", '{"city": "Paris"}')
TRIP = ("get_weather", '{"city": "Paris", "days": 3}')
NOW = ("now", "{}")
_HARMONY = ("<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|constrain|>")

CASES = [
    Case(
        "hermes",
        "<think>\nHm.\n</think>\n\nSure.\n<tool_call>\n"
        '{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
        '<tool_call>\n{"arguments": {}, "name": "now"}\n</tool_call>',
        (PARIS, NOW),
        "Sure.",
        "Hm.",
        "think",
    ),
    Case("hermes", "Two\nlines.\n", content="Two\nlines.\n", reasoning_format="think"),
    Case("hermes", "\nHm.\n</think>\n\nYes.", (), "Yes.", "Hm.", "think", inside=True),
    Case("hermes", "Hm, still", (), "", "Hm, still", "think", inside=True),
    Case("hermes", "<think>\n\n</think>\n\nYes.", (), "Yes.", "", "think"),
    Case("hermes", '<tool_call>{"name": "now"}</tool_call>', (NOW,)),
    Case("hermes", '<tool_call>{"name": "now", "arguments": "{}"}', (NOW,)),
    Case("harmony", "<|channel|>final<|message|>Hello.", (), "Hello.", "", "harmony", _HARMONY),
    Case(
        "harmony",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>A moment.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
        '{"city": "Paris"}',
        (PARIS,),
        "A moment.",
        "Hm.",
        "harmony",
        _HARMONY,
    ),
    Case(
        "harmony",
        "<|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}",
        (NOW,),
        reasoning_format="harmony",
        hidden=_HARMONY,
    ),
    Case(
        "deepseek-v3",
        "One moment.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Paris"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        (PARIS, NOW),
        "One moment.",
    ),
    Case(
        "deepseek-v3-1",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜>'
        "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        (PARIS, NOW),
        hidden=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁sep｜>"),
    ),
    Case(
        "kimi",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        '{"city": "Paris"}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{}'
        "<|tool_call_end|><|tool_calls_section_end|>",
        (PARIS, NOW),
    ),
    Case(
        "command-r",
        "<|START_THINKING|>Hm.<|END_THINKING|><|START_ACTION|>[\n"
        '    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Paris"}},\n'
        '    {"tool_call_id": "1", "tool_name": "now", "parameters": {}}\n]<|END_ACTION|>',
        (PARIS, NOW),
        "",
        "Hm.",
        "command-r",
    ),
    Case("command-r", "<|START_RESPONSE|>Hello.<|END_RESPONSE|>", (), "Hello.", "", "command-r"),
    Case(
        "gemma",
        '<|channel>thought\nHm.<channel|><|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3}<tool_call|>',
        (TRIP,),
        "",
        "Hm.",
        "gemma",
        ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", '<|"|>'),
    ),
    Case(
        "functiongemma",
        "<start_function_call>call:get_weather{city:<escape>Paris<escape>,days:3}<end_function_call>"
        "<start_function_call>call:now{}<end_function_call>",
        (TRIP, NOW),
    ),
    Case(
        "functiongemma",
        "<start_function_call>call:f{a:[<escape>x,y<escape>,1],b:{c:true},d:word}<end_function_call>",
        (("f", '{"a": ["x,y", 1], "b": {"c": true}, "d": "word"}'),),
    ),
    Case(
        "minimax",
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n'
        '<parameter name="days">3</parameter>\n</invoke>\n<invoke name="now">\n</invoke>\n</minimax:tool_call>',
        (TRIP, NOW),
    ),
    Case(
        "seed",
        "<seed:think>Hm.</seed:think><seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n"
        "</function>\n</seed:tool_call>",
        (PARIS,),
        "",
        "Hm.",
        "seed",
    ),
    Case(
        "glm",
        "Yes.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n</tool_call>\n<tool_call>now</tool_call>",
        (TRIP, NOW),
        "Yes.",
    ),
    Case(
        "qwen-coder",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nSan\nJosé\n</parameter>\n<parameter=days>\n3\n"
        "</parameter>\n</function>\n</tool_call>",
        (("get_weather", '{"city": "San\\nJosé", "days": 3}'),),
    ),
    Case("nemotron", '<TOOLCALL>[{"name": "now", "arguments": {}}]</TOOLCALL>', (NOW,)),
    Case("hunyuan", '<tool_calls>[{"name": "now", "arguments": {}}]</tool_calls>', (NOW,)),
    Case("hunyuan", "<think>\nHm.\n</think>\n<answer>\nYes.\n</answer>", (), "Yes.", "Hm.", "hunyuan"),
    Case("phi", '<|tool_call|>[{"name": "now", "arguments": {}}]<|/tool_call|>', (NOW,)),
    Case(
        "granite",
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "now", "arguments": {}}]',
        (PARIS, NOW),
    ),
    Case("granite", "Here is my thought process:\nHm.\n\nHere is my response:\nYes.", (), "Yes.", "Hm.", "granite"),
    Case("lfm", '<|tool_call_start|>[get_weather(city="Paris", days=3)]<|tool_call_end|>Done.', (TRIP,), "Done."),
    Case("olmo", '<function_calls>\nget_weather(city="Paris")\nnow()\n</function_calls>', (PARIS, NOW)),
    Case(
        "mistral-v11",
        '[THINK]Hm.[/THINK][TOOL_CALLS]get_weather[CALL_ID]a1[ARGS]{"city": "Paris"}[TOOL_CALLS]now{}',
        (PARIS, NOW),
        "",
        "Hm.",
        "mistral",
        ("[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]"),
    ),
    Case(
        "mistral",
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "a"}, {"name": "now"}]',
        (PARIS, NOW),
        hidden=("[TOOL_CALLS]",),
    ),
    Case("internlm", '<|action_start|><|plugin|>\n{"name": "now", "parameters": {}}<|action_end|>', (NOW,)),
    Case(
        "llama-pythonic", "[get_weather(city='Paris', days=3), get_weather(city=\"Paris\"), now()]", (TRIP, PARIS, NOW)
    ),
    Case("llama-pythonic", "<|python_start|>[now()]<|python_end|>", (NOW,)),
    Case("llama-pythonic", "[1, 2] is a list", content="[1, 2] is a list"),
    Case(
        "llama",
        '{"name": "get_weather", "parameters": {"city": "Paris"}}; {"name": "now", "parameters": {}}',
        (PARIS, NOW),
    ),
    Case("llama", '<|python_tag|>{"name": "now", "parameters": {}}', (NOW,), hidden=("<|python_tag|>",)),
    Case("llama", '{"name": "Ada", "parameters": {}}', content='{"name": "Ada", "parameters": {}}'),
    Case("llama", ' \n{"answer": 42}', content=' \n{"answer": 42}'),
]

# Looks like a call and is none: what is told is the text itself.
MALFORMED = [
    ("hermes", "Write <tool_call> around it."),
    ("hermes", 'Is <tool_call>{"name": 1}</tool_call> one?'),
    ("hermes", '<tool_call>{"name": "now", "arguments": [1]}</tool_call>'),
    ("hermes", '<tool_call>{"name": "now", "arguments": {"a": oops}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "no w", "arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "now", "arguments": {"a": "cut'),
    ("hermes", '<tool_call>{"arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "now", "arguments": {"a": NaN}}</tool_call>'),
    ("qwen-coder", "<tool_call>\n<function=now>\n<parameter=a>\n1"),
    ("functiongemma", "<start_function_call>call:now{a:1<end_function_call>"),
    ("lfm", "<|tool_call_start|>[now(a=open('x'))]<|tool_call_end|>"),
    ("lfm", "<|tool_call_start|>[now(1)]<|tool_call_end|>"),
    ("kimi", "<|tool_calls_section_begin|>nothing"),
]
