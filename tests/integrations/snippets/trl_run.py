from datasets import load_dataset
from trl import GRPOConfig

from thr_probe.integrations.trl import THROptions, THRTrainer
from thr_probe.problems import load_verifier

verifier = load_verifier("math")


def math_reward(completions, answer, **_):
    verdicts = verifier.verify(completions, [(gold,) for gold in answer])
    return [verdict.reward for verdict in verdicts]


def main(model="Qwen/Qwen2.5-Math-1.5B", data="problems.jsonl", **changes):
    # one JSON object a line: "prompt" in the model's template, "answer"
    dataset = load_dataset("json", data_files=data, split="train")
    given = {
        "output_dir": "runs/thr",
        "num_generations": 8,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 8,
        "max_completion_length": 3072,
        "learning_rate": 1e-6,
        "loss_type": "dapo",
        "log_completions": True,
    }
    with verifier:
        trainer = THRTrainer(
            model=model,
            reward_funcs=math_reward,
            args=GRPOConfig(**(given | changes)),
            train_dataset=dataset,
            thr=THROptions(p=-0.1, correct_above=0.5),
        )
        trainer.train()
    return trainer


if __name__ == "__main__":
    main()
