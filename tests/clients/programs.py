"""Agent loops on the SDKs, to be run by the Python that has them: URL, name and script are their arguments.

Each calls until the model calls no more tools, streams every other answer, and prints the last one.
"""

from typing import Final

OPENAI: Final = """\
import json, subprocess, sys
from openai import OpenAI
url, name, prompt, timeout = sys.argv[1:]
client = OpenAI(base_url=url + "/v1", api_key="x", timeout=float(timeout), max_retries=0,
                default_headers={"X-Session-ID": name})
tools = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]
messages = [{"role": "user", "content": prompt}]
turn = 0
while True:
    turn += 1
    if turn % 2:
        with client.chat.completions.stream(model="m", messages=messages, tools=tools) as stream:
            said = stream.get_final_completion().choices[0].message
    else:
        said = client.chat.completions.create(model="m", messages=messages, tools=tools).choices[0].message
    messages.append(said.model_dump(exclude_none=True, exclude={"parsed"}))
    if not said.tool_calls:
        break
    for call in said.tool_calls:
        command = json.loads(call.function.arguments)["command"]
        done = subprocess.run(command, shell=True, capture_output=True, text=True)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": done.stdout})
print(said.content)
"""

RESPONSES: Final = """\
import json, subprocess, sys
from openai import OpenAI
url, name, prompt, timeout = sys.argv[1:]
client = OpenAI(base_url=url + "/v1", api_key="x", timeout=float(timeout), max_retries=0)
tools = [{"type": "function", "name": "bash", "parameters": {"type": "object"}}]
items = [{"role": "user", "content": prompt}]
turn = 0
while True:
    turn += 1
    asked = {"model": "m", "input": items, "tools": tools, "prompt_cache_key": name}
    if turn % 2:
        with client.responses.stream(**asked) as stream:
            answer = stream.get_final_response()
    else:
        answer = client.responses.create(**asked)
    calls = [item for item in answer.output if item.type == "function_call"]
    items += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in answer.output]
    if not calls:
        break
    for call in calls:
        command = json.loads(call.arguments)["command"]
        done = subprocess.run(command, shell=True, capture_output=True, text=True)
        items.append({"type": "function_call_output", "call_id": call.call_id, "output": done.stdout})
print(answer.output_text)
"""

ANTHROPIC: Final = """\
import subprocess, sys
from anthropic import Anthropic
url, name, prompt, timeout = sys.argv[1:]
client = Anthropic(base_url=url, api_key="x", timeout=float(timeout), max_retries=0,
                   default_headers={"X-Session-ID": name})
tools = [{"name": "bash", "input_schema": {"type": "object"}}]
messages = [{"role": "user", "content": prompt}]
turn = 0
while True:
    turn += 1
    asked = {"model": "m", "max_tokens": 100, "messages": messages, "tools": tools}
    if turn % 2:
        with client.messages.stream(**asked) as stream:
            said = stream.get_final_message()
    else:
        said = client.messages.create(**asked)
    parts = [part.model_dump(exclude_none=True) for part in said.content]
    messages.append({"role": "assistant", "content": parts})
    calls = [part for part in said.content if part.type == "tool_use"]
    if not calls:
        break
    results = []
    for call in calls:
        done = subprocess.run(call.input["command"], shell=True, capture_output=True, text=True)
        results.append({"type": "tool_result", "tool_use_id": call.id, "content": done.stdout})
    messages.append({"role": "user", "content": results})
print("".join(part.text for part in said.content if part.type == "text"))
"""

LITELLM: Final = """\
import json, subprocess, sys
import litellm
url, name, prompt, timeout = sys.argv[1:]
tools = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]
messages = [{"role": "user", "content": prompt}]
turn = 0
while True:
    turn += 1
    stream = turn % 2 == 1
    answer = litellm.completion(
        model="openai/m", base_url=url + "/v1", api_key="x", messages=messages, tools=tools, stream=stream,
        timeout=float(timeout), num_retries=0, max_retries=0, extra_headers={"x-litellm-session-id": name},
    )
    if stream:
        answer = litellm.stream_chunk_builder(list(answer), messages=messages)
    said = answer.choices[0].message
    messages.append(said.model_dump(exclude_none=True))
    if not said.tool_calls:
        break
    for call in said.tool_calls:
        command = json.loads(call.function.arguments)["command"]
        done = subprocess.run(command, shell=True, capture_output=True, text=True)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": done.stdout})
print(said.content)
"""

AGENTS_SDK: Final = """\
import asyncio, subprocess, sys
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, function_tool
from agents import set_tracing_disabled
from openai import AsyncOpenAI
from concur.gateway.adapters.openai_agents import GatedModel
from concur.live.decorate import as_agent
from concur.live.engine_gate import engine_gate
url, prompt = sys.argv[1:]
set_tracing_disabled(True)

@function_tool
def bash(command: str, description: str = "") -> str:
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout

async def one(gate, number):
    client = AsyncOpenAI(base_url=url + "/v1", api_key="x")
    model = GatedModel(OpenAIChatCompletionsModel(model="m", openai_client=client))
    agent = Agent(name="coder", model=model, tools=[bash])
    async with gate.agent(f"a-{number}") as me:
        with as_agent(me):
            return (await Runner.run(agent, f"Run {number}. {prompt}")).final_output

async def streamed(gate):
    client = AsyncOpenAI(base_url=url + "/v1", api_key="x")
    model = GatedModel(OpenAIChatCompletionsModel(model="m", openai_client=client))
    settings = ModelSettings(include_usage=True)
    agent = Agent(name="coder", model=model, tools=[bash], model_settings=settings)
    async with gate.agent("streamed") as me:
        with as_agent(me):
            run = Runner.run_streamed(agent, f"Run streamed. {prompt}")
            async for _ in run.stream_events():
                pass
            return run.final_output

async def main():
    async with engine_gate(url, "agent_cap", cap=2, interval_s=0.5) as gate:
        said = await asyncio.gather(*(one(gate, number) for number in range(5)), streamed(gate))
        print(gate.num_steps, gate.num_usages, *said)

asyncio.run(main())
"""

LANGGRAPH: Final = """\
import asyncio, subprocess, sys
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from concur.gateway.adapters.langgraph import ask
from concur.live.decorate import as_agent
from concur.live.engine_gate import engine_gate
url, prompt = sys.argv[1:]

@tool
def bash(command: str, description: str = "") -> str:
    "Run a command."
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout

model = ChatOpenAI(model="m", base_url=url + "/v1", api_key="x").bind_tools([bash])

async def think(state):
    return {"messages": [await ask(model, state["messages"])]}

def after(state):
    return "tools" if state["messages"][-1].tool_calls else END

graph = StateGraph(MessagesState)
graph.add_node("think", think)
graph.add_node("tools", ToolNode([bash]))
graph.add_edge(START, "think")
graph.add_conditional_edges("think", after)
graph.add_edge("tools", "think")
graph = graph.compile()

async def one(gate, number):
    async with gate.agent(f"a-{number}") as me:
        with as_agent(me):
            state = await graph.ainvoke({"messages": [("user", f"Run {number}. {prompt}")]})
            return state["messages"][-1].content

async def main():
    async with engine_gate(url, "agent_cap", cap=2, interval_s=0.5) as gate:
        said = await asyncio.gather(*(one(gate, number) for number in range(6)))
        print(gate.num_steps, gate.num_usages, *said)

asyncio.run(main())
"""
