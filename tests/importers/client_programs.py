"""Programs for agent libraries, to be run by the Python of the environment that has the library."""

from typing import Final

OPENHANDS: Final = """\
import json, os, sys
from pydantic import SecretStr
from openhands.sdk import LLM, Agent, Conversation, Tool
from openhands.tools.terminal import TerminalTool

out, url, prompt = sys.argv[1:]
llm = LLM(model="openai/m", base_url=url + "/v1", api_key=SecretStr("x"), usage_id="agent")
conversation = Conversation(
    agent=Agent(llm=llm, tools=[Tool(name=TerminalTool.name)]),
    workspace=os.getcwd(),
    persistence_dir=os.path.join(os.environ["HOME"], "conversations"),
)
conversation.send_message(prompt)
conversation.run()
# What the evaluations of OpenHands write for a task.
row = {
    "instance_id": "task",
    "test_result": {},
    "history": [event.model_dump(mode="json") for event in conversation.state.events],
    "metrics": conversation.conversation_stats.get_combined_metrics().model_dump(mode="json"),
    "error": None,
}
with open(out, "w") as file:
    file.write(json.dumps(row) + "\\n")
"""

INSPECT_AI: Final = """\
import asyncio, sys
from inspect_ai import Task, eval
from inspect_ai.agent import react, run
from inspect_ai.dataset import Sample
from inspect_ai.scorer import model_graded_qa
from inspect_ai.tool import tool

out, prompt = sys.argv[1:]

@tool(name="bash")
def shell():
    async def execute(command: str, description: str = ""):
        \"\"\"Run a command.

        Args:
            command: The command.
            description: What it is for.
        \"\"\"
        process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
        return (await process.communicate())[0].decode()
    return execute

@tool(name="task")
def child():
    async def execute(description: str, prompt: str, subagent_type: str = ""):
        \"\"\"Start a sub-agent.

        Args:
            description: What it is for.
            prompt: Its task.
            subagent_type: Its kind.
        \"\"\"
        agent = react(name="child", description="a child", tools=[shell()], submit=False)
        return (await run(agent, prompt)).output.completion
    return execute

task = Task(
    dataset=[Sample(id="sample", input=prompt, target="done")],
    solver=react(name="main", tools=[shell(), child()], submit=False),
    scorer=model_graded_qa(model="openai-api/scripted/m"),
)
eval(task, model="openai-api/scripted/m", log_dir=out, log_format="json", display="none")
"""
